"""The U-Net of GradICON: counts and values of the reference, zero start, any size, running statistics."""

from __future__ import annotations

import copy

import pytest
import torch

from warpwright.errors import BadInput
from warpwright.networks import Basis, BasisLogits, Displacement, Estimator, Velocity, save_memory
from warpwright.networks.tall_unet import TallUNet

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(shape: tuple[int, ...], *, started: bool = True, channels: int = 2, scale: float = 0.15) -> Estimator:
    """A small one; `started`: with a last layer that is not zero."""
    torch.manual_seed(1)
    net = TallUNet(scale=scale).build(len(shape), channels).double()
    if started:
        torch.nn.init.normal_(net.head.weight)
    return net


@pytest.mark.parametrize(("dim", "expected"), [(2, 4_756_902), (3, 17_670_229)])
def test_published_counts(dim: int, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in TallUNet().build(dim).parameters()) == expected


@pytest.mark.parametrize(("dim", "kernels"), [(2, (9, 16)), (3, (27, 64))])
def test_a_quarter_of_the_widths(dim: int, kernels: tuple[int, int]) -> None:
    down = [(2, 4), (4, 8), (8, 16), (16, 64), (64, 128)]
    up = [(128, 64), (128, 32), (48, 16), (24, 8), (12, 4)]
    expected = sum(a * b * kernels[0] + b for a, b in [*down, (4 + 2, dim)]) + sum(a * b * kernels[1] + 3 * b for a, b in up)
    with torch.device("meta"):
        assert sum(p.numel() for p in TallUNet(scale=0.25).build(dim).parameters()) == expected


def waves(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """The images of the reference values, (1, 1, *S)."""
    value = torch.ones((), dtype=torch.float64)
    for n, wave, rate, shift in zip(shape, (torch.sin, torch.cos, torch.cos), (0.3, 0.2, 0.25), (0.5, 0.3, 0.2), strict=False):
        value = value[..., None] * wave(rate * torch.arange(n, dtype=torch.float64) + shift * phase)
    return value[None, None]


@pytest.mark.parametrize(
    ("shape", "mean", "deviation", "first", "last"),
    [
        ((37, 50), 9.39903e-4, 3.99282e-3, (-0.00618490, -0.00775578, -0.00696943, -0.00598888), (0.01346962, 0.01216398)),
        (
            (19, 23, 26),
            1.476002e-3,
            4.856199e-3,
            (-0.01091236, -0.01395752, -0.01262874, -0.01087092),
            (-0.00572497, -0.00083718),
        ),
    ],
    ids=("2d", "3d"),
)
def test_values_of_the_reference(
    shape: tuple[int, ...], mean: float, deviation: float, first: tuple[float, ...], last: tuple[float, ...]
) -> None:
    """The authors' network with every (transposed) convolution filled with 0.03 sin(0.7 n), in single precision."""
    net = TallUNet().build(len(shape)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" not in name:
                phases = 0.7 * torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_(0.03 * phases.sin().view_as(parameter))
        values = net(fixed=waves(shape, 1.0).float(), moving=waves(shape, 0.0).float()).values
    raw = values[0].movedim(0, -1) / (torch.tensor(shape) - 1)
    raw = raw.movedim(-1, 0).flatten().double()
    found = torch.stack((raw.mean(), raw.std(), *raw[:4], *raw[-2:]))
    expected = torch.tensor((mean, deviation, *first, *last), dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=2e-8, rtol=0)  # single precision, values printed to 8 places


@DIMS
def test_field_is_exactly_zero_at_the_start(shape: tuple[int, ...]) -> None:
    assert network(shape, started=False)(*images(shape)).values.abs().max() == 0


@DIMS
def test_any_size_finite_with_a_gradient_everywhere(shape: tuple[int, ...]) -> None:
    net = network(shape)
    estimate = net(*images(shape))
    assert isinstance(estimate, Displacement)
    assert (estimate.shape, estimate.factors) == (shape, (1,) * len(shape))
    assert estimate.values.shape == (2, len(shape), *shape)
    assert estimate.values.isfinite().all()
    net.eval()  # biases before a normalisation that centres its batch have no gradient
    net(*images(shape)).values.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(1, 3), (2, 1, 5)])
def test_axes_of_one_voxel_do_not_move(shape: tuple[int, ...]) -> None:
    values = network(shape)(*images(shape)).values
    assert values.shape == (2, len(shape), *shape)
    assert values[:, shape.index(1)].abs().max() == 0
    assert values.isfinite().all()


@DIMS
def test_more_channels_than_widths(shape: tuple[int, ...]) -> None:
    net = network(shape, channels=5, scale=0.1)
    assert net(*images(shape, channels=5)).values.isfinite().all()


@DIMS
def test_batch_equals_one_by_one(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    both = net(fixed, moving).values
    for k in range(2):
        torch.testing.assert_close(net(fixed[k : k + 1], moving[k : k + 1]).values[0], both[k], atol=1e-12, rtol=0)


@DIMS
def test_velocity(shape: tuple[int, ...]) -> None:
    estimate = TallUNet(field="velocity", scale=0.1).build(len(shape), 2).double()(*images(shape))
    assert isinstance(estimate, Velocity)
    assert estimate.values.shape == (2, len(shape), *shape)


@pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11), (1, 3), (2, 1, 5)])
def test_distributions_over_a_basis(shape: tuple[int, ...]) -> None:
    """All alike at the start; then what the last layer gives, whatever the size of the image."""
    dim, basis = len(shape), Basis(reach=2, step=1)
    torch.manual_seed(1)
    net = TallUNet(field=basis, scale=0.15).build(dim, 2).double()
    estimate = net(*images(shape))
    assert isinstance(estimate, BasisLogits)
    assert (estimate.shape, estimate.factors, estimate.basis) == (shape, (1,) * dim, basis)
    assert estimate.values.shape == (2, 5**dim, *shape)
    assert estimate.vectors.tolist() == basis.vectors(dim).tolist()
    assert estimate.values.abs().max() == 0
    with torch.no_grad():
        net.get_parameter("head.bias").copy_(torch.arange(5**dim))
        values = net(*images(shape)).values
    assert torch.equal(values, torch.arange(5.0**dim).double().reshape(-1, *(1,) * dim).expand_as(values))


@DIMS
def test_saving_memory_changes_neither_gradients_nor_statistics(shape: tuple[int, ...]) -> None:
    plain = network(shape)
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        net(*images(shape)).values.square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_bad_scale() -> None:
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="must be above 0 and finite, got"):
            TallUNet(scale=scale)
