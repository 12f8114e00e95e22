"""The kernel of the mean squared difference against its twin and a loop, and as an operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles import slow
from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.energies.similarity.mse import MSE
from warpwright.kernels import plainly

CASES = {"2d": ((5, 7), (6, 4)), "3d": ((5, 7, 6), (6, 3, 8)), "flat": ((5, 1, 6), (6, 5, 1)), "line": ((1, 9), (7, 1))}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, generator: torch.Generator) -> list[Tensor]:
    """Fixed and moving image, a displacement that leaves it here and there, an affine, two weights."""
    shape, moving = request.param
    dim = len(shape)
    affine = torch.eye(dim + 1, dtype=torch.float64)
    affine[:dim] += 0.1 * normal(generator, dim, dim + 1)
    weights = [torch.rand(1, 1, *s, generator=generator, dtype=torch.float64) for s in (shape, moving)]
    return [
        normal(generator, 2, 2, *shape),
        normal(generator, 1, 2, *moving),
        normal(generator, 2, dim, *shape),
        affine,
        *weights,
    ]


def value_and_gradient(inputs: Sequence[Tensor | None], by: int) -> tuple[Tensor, Tensor]:
    """Of twice the first sample's energy plus that of the others, in one of the inputs."""
    given = [None if t is None else t.clone().requires_grad_(k == by) for k, t in enumerate(inputs)]
    value = MSE().match(*given)  # pyright: ignore[reportArgumentType]
    cotangent = torch.ones_like(value)
    cotangent[0] = 2
    return value.detach(), torch.autograd.grad(value, given[by], cotangent)[0]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("without", [(), (4,), (5,), (4, 5), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("by", [0, 1, 2, 3], ids=["fixed", "moving", "displacement", "affine"])
def test_value_and_gradient_are_those_of_the_twin(case: list[Tensor], without: tuple[int, ...], by: int) -> None:
    if by in without:
        return
    inputs = [None if k in without else t for k, t in enumerate(case)]
    with plainly():
        expected = value_and_gradient(inputs, by)
    found = value_and_gradient(inputs, by)
    rows = slice(None, -1) if by == 3 else slice(None)  # the last row of an affine is fixed
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1][..., rows, :], expected[1][..., rows, :], rtol=1e-10, atol=1e-12)


def test_value_against_a_loop(case: list[Tensor]) -> None:
    fixed, moving, field, affine, weight, moving_weight = (t.numpy() for t in case)
    for b in range(2):
        loss = size = 0.0
        for voxel in np.ndindex(*fixed.shape[2:]):
            point = (affine @ [*(np.array(voxel) + field[(b, slice(None), *voxel)]), 1])[:-1]
            w = weight[(0, 0, *voxel)] * slow.read_linear(moving_weight[0, 0], point, "zero")
            for c in range(2):
                loss += w * (slow.read_linear(moving[0, c], point, "edge") - fixed[(b, c, *voxel)]) ** 2 / 2
            size += w
        assert MSE().match(*case)[b].item() == pytest.approx(loss / size, rel=1e-10)


def test_one_affine_for_each_sample(case: list[Tensor]) -> None:
    fixed, moving, field, affine, *_ = case
    affines = torch.stack([affine, affine.roll(1, 0).roll(1, 1)])
    affines[1, -1] = affine[-1]
    for inputs in ((fixed, moving, field, affines), (fixed[:1], moving, field[:1], affine[None])):
        for by in (2, 3):
            with plainly():
                expected = value_and_gradient(inputs, by)
            found = value_and_gradient(inputs, by)
            rows = slice(None, -1) if by == 3 else slice(None)
            torch.testing.assert_close(found[0], expected[0])
            torch.testing.assert_close(found[1][..., rows, :], expected[1][..., rows, :])


def test_nothing_covered_is_zero(case: list[Tensor]) -> None:
    fixed, moving, field, *_ = case
    for by in (2, 3):
        value, gradient = value_and_gradient([fixed, moving, field + 100, case[3]], by)
        assert value.tolist() == [0, 0]
        assert not gradient.any()


def test_single_precision() -> None:
    shape = (20, 21, 22)
    waves = smooth_field(shape, 1.0, channels=3)
    inputs = [waves[:, :1], waves[:, 1:2], 3 * smooth_field(shape, 1.0) + 0.3, torch.eye(4, dtype=torch.float64)]
    for by in (2, 3):
        wanted = value_and_gradient(inputs, by)
        found = value_and_gradient([*(t.float() for t in inputs[:3]), inputs[3]], by)
        assert found[0].dtype == torch.float32
        assert found[1].dtype == (torch.float64 if by == 3 else torch.float32)
        torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(found[1].double(), wanted[1], rtol=1e-4, atol=1e-4 * wanted[1].abs().max().item())


def test_derivatives(dim: int, generator: torch.Generator) -> None:
    shape = (4, 3, 3)[:dim]
    fixed, moving = normal(generator, 2, 1, *shape), normal(generator, 1, 1, *shape)
    field = (smooth_field(shape, 0.2) + 0.3).requires_grad_()  # away from the voxels' centres
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    # where the image is left the weight depends on the displacement, which the gradient disregards: keep inside
    affine = torch.eye(dim + 1, dtype=torch.float64)
    affine[:dim, :dim] *= 0.6
    assert gradcheck(lambda u: MSE().match(fixed, moving, u, affine, weight), field)
    assert gradgradcheck(lambda u: MSE().match(fixed, moving, u, affine, weight), field)
    rows = affine[:dim].clone().requires_grad_()

    def energy(rows: Tensor) -> Tensor:
        return MSE().match(fixed, moving, field.detach(), torch.cat([rows, affine[dim:]]), weight)

    assert gradcheck(energy, rows)
    assert gradgradcheck(energy, rows)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    fixed, moving, field = normal(generator, 1, 1, 3, 4), normal(generator, 1, 1, 4, 5), normal(generator, 1, 2, 3, 4)
    MSE().match(fixed, moving, field)  # registers
    operator, affine = torch.ops.warpwright.match_mse, torch.eye(3, dtype=torch.float64)
    torch.library.opcheck(operator, (fixed, moving, field.requires_grad_(), None, None, None, True, False))
    torch.library.opcheck(operator, (fixed, moving, field.detach(), affine.requires_grad_(), fixed**2, moving**2, False, True))
    torch.library.opcheck(operator, (fixed, moving, field.detach(), None, None, None, False, False))


def test_compiled(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    fixed, moving, field = normal(generator, 1, 1, 6, 5), normal(generator, 1, 1, 4, 5), normal(generator, 1, 2, 6, 5)
    field.requires_grad_()
    (expected,) = torch.autograd.grad(MSE().match(fixed, moving, field).sum(), field)
    compiled = torch.compile(lambda u: MSE().match(fixed, moving, u).sum(), fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(field), field)
    torch.testing.assert_close(found, expected)


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    shape = (40, 33, 37)
    fixed, moving = normal(generator, 1, 1, *shape).float(), normal(generator, 1, 1, *shape).float()
    inputs = (fixed, moving, normal(generator, 1, 3, *shape).float(), torch.eye(4, dtype=torch.float64), fixed**2)
    for by in (2, 3):
        assert same_bytes(lambda by=by: value_and_gradient(inputs, by))
