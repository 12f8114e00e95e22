"""Bases of displacements: their order, their number, settings that are read again, bad input."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from oracles.make import normal
from warpwright.config import from_mapping, to_mapping
from warpwright.errors import BadInput
from warpwright.networks import Basis, BasisLogits, Displacement, LKUNet, TallUNet, TransMorph, Velocity, VoxelMorph
from warpwright.networks.estimate import components, field


def test_displacements_lie_on_a_grid_around_zero(dim: int) -> None:
    for basis, line in ((Basis(reach=2), (-2, -1, 0, 1, 2)), (Basis(reach=3, step=1.5), (-3, -1.5, 0, 1.5, 3))):
        vectors = basis.vectors(dim)
        assert vectors.dtype == torch.float32
        assert [tuple(vector) for vector in vectors.tolist()] == list(product(line, repeat=dim))
        assert components(basis, dim) == len(vectors) == 5**dim
    assert Basis(reach=1.2, step=0.4).around == 3  # 1.2 / 0.4 is not quite 3
    assert Basis(reach=1.2, step=0.4).vectors(1).shape == (7, 1)


def test_a_field_of_every_kind(dim: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
    known = {"shape": tuple(2 * n for n in shape), "factors": (2,) * dim}
    values = normal(generator, 2, dim, *shape)
    for kind, cls in (("displacement", Displacement), ("velocity", Velocity)):
        found = field(values, kind, **known)
        assert type(found) is cls
        assert found.values is values
        assert components(kind, dim) == dim
    basis, many = Basis(reach=1), normal(generator, 2, 3**dim, *shape)
    found = field(many, basis, **known, coarser=(found,))
    assert isinstance(found, BasisLogits)
    assert found.values is many
    assert found.basis == basis
    assert torch.equal(found.vectors, basis.vectors(dim).double())
    assert (found.shape, found.factors, len(found.coarser)) == (known["shape"], known["factors"], 1)
    fine = Basis(reach=0.3, step=0.1)
    short = field(normal(generator, 1, 7**dim, *shape).bfloat16(), fine, **known)
    assert isinstance(short, BasisLogits)
    assert torch.equal(short.vectors, fine.vectors(dim))  # three digits would not do for coordinates


@pytest.mark.parametrize("architecture", [VoxelMorph, TransMorph, LKUNet, TallUNet])
def test_settings_are_read_again(architecture: type[VoxelMorph | TransMorph | LKUNet | TallUNet]) -> None:
    for kind in ("displacement", "velocity", Basis(reach=3, step=1.5)):
        settings = architecture(field=kind)
        assert from_mapping(architecture, to_mapping(settings)) == settings


@pytest.mark.parametrize(
    ("reach", "step"),
    [(2.5, 1), (1, 2), (0, 1), (2, 0), (-2, 1), (-2, -1), (math.inf, 1), (math.inf, math.inf), (math.nan, 1), (1, math.nan)],
)
def test_a_reach_is_a_multiple_of_the_step(reach: float, step: float) -> None:
    with pytest.raises(BadInput) as error:
        Basis(reach=reach, step=step)
    assert error.value.args == (f"a basis needs a reach that is a multiple of its step > 0, got {reach} and {step}",)
