"""DIRNet: published counts, the control lattice, zero start, any size, saving memory."""

from __future__ import annotations

import copy

import pytest
import torch

from warpwright.errors import BadInput
from warpwright.networks import ControlPoints, Estimator, save_memory
from warpwright.networks.dirnet import DIRNet, Form, at_control_points
from warpwright.transforms.bspline import control_shape

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))
FORMS = pytest.mark.parametrize("form", ["paper", "torchir"])


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(shape: tuple[int, ...], form: Form, *, spacing: int = 4, started: bool = True) -> Estimator:
    """A small one; `started`: with a last layer that is not zero."""
    torch.manual_seed(1)
    net = DIRNet(form=form, spacing=spacing, kernels=3).build(len(shape), 2).double()
    if started:
        torch.nn.init.normal_(net.head.weight)
    return net


def count(form: Form, dim: int, spacing: int = 16) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in DIRNet(form=form, spacing=spacing).build(dim).parameters())


@pytest.mark.parametrize(
    ("form", "dim", "expected"), [("paper", 2, 8_034), ("paper", 3, 22_451), ("torchir", 2, 39_778), ("torchir", 3, 114_691)]
)
def test_published_counts(form: Form, dim: int, expected: int) -> None:
    assert count(form, dim) == expected


@pytest.mark.parametrize("dim", [2, 3])
def test_counts_at_other_spacings(dim: int) -> None:
    assert count("torchir", dim, 8) == count("torchir", dim, 32) == count("torchir", dim)
    assert count("torchir", dim, 64) == count("torchir", dim) + 32 * 32 * 3**dim + 32
    assert count("paper", dim, 8) == count("paper", dim) - (16 * 16 * 3**dim + 16) - 2 * 16


@FORMS
@pytest.mark.parametrize("spacing", [2, 4, 16])
def test_lattice_is_that_of_the_spline(form: Form, spacing: int) -> None:
    for n in range(1, 40):
        shape = (n, 41 - n)
        estimate = network(shape, form, spacing=spacing).eval()(*images(shape, batch=1))
        assert isinstance(estimate, ControlPoints)
        assert estimate.values.shape == (1, 2, *control_shape(shape, estimate.knots))
        assert (estimate.knots, estimate.factors, estimate.shape) == ((float(spacing),) * 2, (1, 1), shape)
        assert estimate.of == "displacement"


@DIMS
@FORMS
@pytest.mark.parametrize("spacing", [4, 16])
def test_lattice_in_both_dimensions(form: Form, spacing: int, shape: tuple[int, ...]) -> None:
    estimate = network(shape, form, spacing=spacing)(*images(shape))
    assert estimate.values.shape == (2, len(shape), *control_shape(shape, estimate.knots))


@pytest.mark.parametrize("shape", [(12, 20), (8, 12, 20)], ids=("2d", "3d"))
def test_features_are_read_where_the_control_points_are(shape: tuple[int, ...]) -> None:
    """Features that hold the middle of their voxels: away from the ends the points find their place, up to half a voxel."""
    spacing, dim = 4, len(shape)
    axes = [(torch.arange(n // spacing, dtype=torch.float64) + 0.5) * spacing - 0.5 for n in shape]
    places = at_control_points(torch.stack(torch.meshgrid(*axes, indexing="ij"))[None])
    for axis in range(dim):
        along = places[0, axis].movedim(axis, 0)
        inner = along[2:-2].flatten(1)
        wanted = (torch.arange(along.shape[0], dtype=torch.float64)[2:-2] - 1) * spacing
        torch.testing.assert_close(inner, (wanted - 0.5)[:, None].expand_as(inner), atol=1e-12, rtol=0)
        assert (along[:2] == axes[axis][0]).all()
        assert (along[-2:] == axes[axis][-1]).all()


@DIMS
@FORMS
def test_exactly_zero_at_the_start(form: Form, shape: tuple[int, ...]) -> None:
    assert network(shape, form, started=False)(*images(shape)).values.abs().max() == 0


@DIMS
@FORMS
def test_any_size_finite_with_a_gradient_everywhere(form: Form, shape: tuple[int, ...]) -> None:
    net = network(shape, form)
    assert net(*images(shape)).values.isfinite().all()
    net.eval()  # biases before a normalisation that centres its batch have no gradient
    net(*images(shape)).values.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@DIMS
@FORMS
def test_batch_equals_one_by_one(form: Form, shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape, form).eval(), images(shape)
    both = net(fixed, moving).values
    for k in range(2):
        torch.testing.assert_close(net(fixed[k : k + 1], moving[k : k + 1]).values[0], both[k], atol=1e-12, rtol=0)


@DIMS
@FORMS
def test_moving_comes_first(form: Form, shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape, form).eval(), images(shape)
    first = next(m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d)))
    with torch.no_grad():
        next(first.parameters())[:, :2] = 0.0
    assert torch.equal(net(fixed, moving).values, net(fixed, 1 - moving).values)
    assert not torch.equal(net(fixed, moving).values, net(1 - fixed, moving).values)


@DIMS
@FORMS
def test_saving_memory_changes_neither_gradients_nor_statistics(form: Form, shape: tuple[int, ...]) -> None:
    plain = network(shape, form)
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        net(*images(shape)).values.square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_bad_settings() -> None:
    for spacing in (0, 1, 12, -4):
        with pytest.raises(BadInput, match=f"power of two of at least 2, got {spacing}"):
            DIRNet(spacing=spacing)
    with pytest.raises(BadInput, match="at least 1 kernel, got 0"):
        DIRNet(kernels=0)
