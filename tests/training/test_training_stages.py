"""A network in two steps that begins with a trained first one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oracles.cohort import tiny, write_cohort
from warpwright.energies.losses import GradientInverseConsistency, Images
from warpwright.energies.similarity import LocalCorrelation
from warpwright.errors import BadInput
from warpwright.layers import FullSize, Integrate
from warpwright.methods import Direct, TwoStep, stage_1
from warpwright.networks import TallUNet, VoxelMorph
from warpwright.product.model_folder import read_model
from warpwright.schemes import Adam, Constant, Plain
from warpwright.training import train

SMALL = TallUNet(scale=0.125)
STAGE_1 = stage_1(SMALL)
STAGE_2 = TwoStep(first=STAGE_1, second=SMALL)
LOSS = (Images(similarity=LocalCorrelation(sigma=2.0)), GradientInverseConsistency(weight=0.75))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {2: write_cohort(tmp_path_factory.mktemp("2d"), 2)}


def test_stage_two_begins_with_stage_one(tables, tmp_path):
    plain = tiny(tables[2], 2, scheme=Plain(optimiser=Adam(rate=1e-3), schedule=Constant()))
    first = replace(plain, model=replace(plain.model, network=STAGE_1, layers=(), loss=LOSS))
    train(first, tmp_path / "one")
    one = read_model(tmp_path / "one" / "model").model
    still = Plain(optimiser=Adam(rate=1e-30), schedule=Constant())
    second = replace(
        first, model=replace(first.model, network=STAGE_2), weights=tmp_path / "one" / "model", scheme=still, steps=1
    )
    train(second, tmp_path / "two")
    two = read_model(tmp_path / "two" / "model").model
    own = two.state_dict()
    for name, value in one.named_parameters():
        assert torch.equal(own[f"network.first.{name.removeprefix('network.')}"], value)
    last = {name: value for name, value in own.items() if name.startswith("network.second.network.head")}
    assert last
    assert max(float(value.abs().max()) for value in last.values()) < 1e-20  # the second step is fresh
    assert max(float(value.abs().max()) for name, value in own.items() if "first.second.network.head" in name) > 1e-6


def test_a_first_step_with_layers_of_its_own_is_taken_over_whatever_layers_the_second_has(tables, tmp_path):
    own = Direct(network=VoxelMorph(form="vm1", scale=0.25), layers=(Integrate(steps=2), FullSize()))
    plain = tiny(tables[2], 2, steps=1)
    train(replace(plain, model=replace(plain.model, network=own, layers=(), loss=LOSS)), tmp_path / "one")
    second = replace(plain.model, network=TwoStep(first=own, second=VoxelMorph(form="vm1", scale=0.25)), loss=LOSS)
    still = Plain(optimiser=Adam(rate=1e-30), schedule=Constant())
    train(replace(plain, model=second, weights=tmp_path / "one" / "model", scheme=still), tmp_path / "two")
    one, two = (read_model(tmp_path / name / "model").model.state_dict() for name in ("one", "two"))
    assert all(torch.equal(two[f"network.first.{name.removeprefix('network.')}"], value) for name, value in one.items())


def test_other_networks_are_refused(tables, tmp_path):
    plain = tiny(tables[2], 2)
    train(replace(plain, steps=1), tmp_path / "one")
    other = replace(plain.model, network=TwoStep(first=SMALL, second=SMALL), layers=(), loss=LOSS)
    with pytest.raises(BadInput, match="weights of another architecture"):
        train(replace(plain, model=other, weights=tmp_path / "one" / "model"), tmp_path / "two")
