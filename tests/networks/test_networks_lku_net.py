"""LKU-Net: published counts, any size, the range of the field, order of the images, saving memory."""

from __future__ import annotations

import copy

import pytest
import torch

from warpwright.errors import BadInput
from warpwright.networks import Basis, BasisLogits, Displacement, Estimator, Velocity, save_memory
from warpwright.networks.lku_net import LargeKernel, LKUNet

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))
HALF = pytest.mark.parametrize("half", [False, True], ids=("full", "half"))


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(shape: tuple[int, ...], **settings: object) -> Estimator:
    torch.manual_seed(1)
    return LKUNet(start=2, **settings).build(len(shape), 2).double()  # pyright: ignore[reportArgumentType]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("dim", "start", "expected"), [(3, 4, 522_302), (3, 8, 2_086_342), (3, 16, 8_339_702), (3, 32, 33_347_542), (2, 8, 779_318)]
)
def test_published_counts(dim: int, start: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(LKUNet(start=start).build(dim)) == expected


def test_count_of_a_large_kernel() -> None:
    assert count(LargeKernel(3, 16, 5)) == 39_217


@pytest.mark.parametrize("dim", [2, 3])
def test_half_resolution_lacks_exactly_the_finest_level(dim: int) -> None:
    c = 8
    with torch.device("meta"):
        full, half = (count(LKUNet(start=c, half_resolution=h).build(dim)) for h in (False, True))
    transposed = 2**dim * (2 * c) ** 2 + 2 * c + 1
    convolutions = 3**dim * (3 * c * 2 * c + (2 * c) ** 2) + 2 * (2 * c + 1)
    assert full - half == transposed + convolutions


@pytest.mark.parametrize("dim", [2, 3])
def test_kernel_changes_only_the_largest_convolution(dim: int) -> None:
    with torch.device("meta"):
        small, large = (count(LKUNet(start=1, kernel=k).build(dim)) for k in (3, 9))
    assert large - small == (9**dim - 3**dim) * (2**2 + 4**2 + 8**2 + 8**2)


@DIMS
@HALF
def test_any_size_finite_with_a_gradient_everywhere(shape: tuple[int, ...], half: bool) -> None:
    net = network(shape, half_resolution=half)
    estimate = net(*images(shape))
    factor = 2 if half else 1
    assert isinstance(estimate, Displacement)
    assert estimate.shape == shape
    assert estimate.factors == (factor,) * len(shape)
    assert estimate.values.shape == (2, len(shape), *(-(-n // factor) for n in shape))
    estimate.values.square().sum().backward()
    assert estimate.values.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(1, 3), (2, 1, 5)])
def test_axes_of_one_voxel(shape: tuple[int, ...]) -> None:
    assert network(shape)(*images(shape)).values.shape == (2, len(shape), *shape)


@DIMS
def test_batch_equals_one_by_one(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    both = net(fixed, moving).values
    for k in range(2):
        torch.testing.assert_close(net(fixed[k : k + 1], moving[k : k + 1]).values[0], both[k], atol=1e-12, rtol=0)


@DIMS
@HALF
def test_field_reaches_half_the_image_and_no_further(shape: tuple[int, ...], half: bool) -> None:
    net = network(shape, half_resolution=half)
    with torch.no_grad():
        net.get_parameter("head.0.weight").mul_(1e12)
        values = net(*images(shape)).values * (2 if half else 1)
    longest = values.abs().movedim(1, 0).flatten(1).amax(1)
    bound = torch.tensor(shape, dtype=torch.float64) / 2
    assert (longest <= bound).all()
    torch.testing.assert_close(longest, bound, rtol=1e-6, atol=0)  # softsign comes close, it never arrives


@DIMS
def test_moving_comes_first(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape), images(shape)
    first = next(m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d)))
    with torch.no_grad():
        next(first.parameters())[:, :2] = 0.0
    assert torch.equal(net(fixed, moving).values, net(fixed, 1 - moving).values)
    assert not torch.equal(net(fixed, moving).values, net(1 - fixed, moving).values)


@DIMS
def test_velocity(shape: tuple[int, ...]) -> None:
    estimate = network(shape, field="velocity")(*images(shape))
    assert isinstance(estimate, Velocity)
    assert torch.equal(estimate.values, network(shape)(*images(shape)).values)


@DIMS
@HALF
def test_distributions_over_a_basis(shape: tuple[int, ...], half: bool) -> None:
    """Their logarithms are not bounded, as a field is."""
    dim, basis, factor = len(shape), Basis(reach=2, step=1), 2 if half else 1
    net = network(shape, field=basis, half_resolution=half)
    estimate = net(*images(shape))
    assert isinstance(estimate, BasisLogits)
    assert (estimate.shape, estimate.factors, estimate.basis) == (shape, (factor,) * dim, basis)
    assert estimate.values.shape == (2, 5**dim, *(-(-n // factor) for n in shape))
    assert estimate.vectors.tolist() == basis.vectors(dim).tolist()
    estimate.values.log_softmax(1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    with torch.no_grad():
        net.get_parameter("head.0.weight").mul_(1000)
        torch.testing.assert_close(net(*images(shape)).values, 1000 * estimate.values, rtol=1e-9, atol=1e-9)


@DIMS
def test_saving_memory_gives_the_same_gradients(shape: tuple[int, ...]) -> None:
    plain = network(shape)
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        net(*images(shape)).values.square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_bad_settings() -> None:
    with pytest.raises(BadInput, match="at least 1 channel, got 0"):
        LKUNet(start=0)
    for kernel in (1, 4):
        with pytest.raises(BadInput, match=f"odd and at least 3, got {kernel}"):
            LKUNet(kernel=kernel)
