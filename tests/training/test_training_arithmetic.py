"""What a step computes, and which pairs it looks at."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oracles.cohort import lines, rich, stream_of, tiny, write_cohort
from warpwright.energies.losses import Smoothness
from warpwright.layers import FullSize
from warpwright.methods import Model
from warpwright.networks import FCNSS, VoxelMorph
from warpwright.schemes import SGD, Constant, Plain
from warpwright.training import Training, train
from warpwright.training.checkpoint import read_checkpoint
from warpwright.training.processes import Processes


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Tables of images with labels, by number of axes."""
    return {dim: write_cohort(tmp_path_factory.mktemp(f"cohort{dim}"), dim) for dim in (2, 3)}


def weights_after(training: Training, output: Path) -> dict[str, torch.Tensor]:
    train(training, output)
    state = read_checkpoint(output / "checkpoint.safetensors").state
    return {name: value for name, value in state.items() if name.startswith("model.")}


def test_accumulated_batches_are_one_large_batch(tables, tmp_path):
    plain = tiny(tables[2], 2, precision="float64", scheme=Plain(optimiser=SGD(rate=0.5, momentum=0.9), schedule=Constant()))
    one = weights_after(replace(plain, batch=4), tmp_path / "one")
    other = weights_after(replace(plain, batch=2, accumulate=2), tmp_path / "other")
    third = weights_after(replace(plain, batch=1, accumulate=4), tmp_path / "third")
    assert next(iter(one.values())).dtype == torch.float64
    fresh = Model(plain.model)
    assert max(float((value - fresh.state_dict()[k[6:]]).abs().max()) for k, value in one.items()) > 1e-2  # it did learn
    for found in (other, third):
        assert max(float((found[name] - value).abs().max()) for name, value in one.items()) < 1e-12
    losses = [[row["loss"] for row in lines(tmp_path / name)] for name in ("one", "other", "third")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0] == pytest.approx(losses[2], rel=1e-9)


@pytest.mark.parametrize("network", [VoxelMorph(form="vm2", half_resolution=True, scale=0.25), FCNSS()], ids=("plain", "norms"))
def test_saving_memory_changes_no_byte(network, tables, tmp_path):
    plain = tiny(tables[2], 2, steps=2)
    layers = plain.model.layers if isinstance(network, VoxelMorph) else (FullSize(),)
    loss = plain.model.loss if isinstance(network, VoxelMorph) else (*plain.model.loss[:1], Smoothness(weight=0.1))
    training = replace(plain, model=replace(plain.model, network=network, layers=layers, loss=loss))
    for name, saving in (("a", False), ("b", True)):
        train(replace(training, save_memory=saving), tmp_path / name)
    for name in ("model/weights.safetensors", "model/model.json", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    states = [read_checkpoint(tmp_path / name / "checkpoint.safetensors").state for name in "ab"]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_bfloat16_trains_with_weights_of_float32(tables, tmp_path):
    training = rich(tables[3], 3, precision="bfloat16", steps=4)
    state = weights_after(training, tmp_path / "run")
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(bool(value.isfinite().all()) for value in state.values())
    full = weights_after(replace(training, precision="float32"), tmp_path / "full")
    assert any(not torch.equal(value, full[name]) for name, value in state.items())
    losses = [[row["loss"] for row in lines(tmp_path / name)] for name in ("run", "full")]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)  # eight bits of precision


def test_the_average_of_the_weights_is_what_is_kept(tables):
    """By hand: mean <- mean + (1 - d) (weights - mean) with d = min(decay, (1 + n) / (10 + n)), n steps done before."""
    plain = tiny(tables[2], 2)
    model = Model(plain.model)
    scheme = Plain(optimiser=SGD(rate=0.5), schedule=Constant(), average=0.2).build(model, 4)
    stream = stream_of(plain)
    mean = {name: value.clone().double() for name, value in model.named_parameters()}
    for number in range(4):
        scheme.step(number, stream.step(number, Processes()), lambda _: None)
        decay = min(0.2, (1 + number) / (10 + number))
        for name, value in model.named_parameters():
            mean[name] += (1 - decay) * (value.detach().double() - mean[name])
    for name, value in scheme.kept.named_parameters():
        assert torch.allclose(value.double(), mean[name], atol=1e-7)
    assert any(not torch.equal(a, b) for a, b in zip(scheme.kept.parameters(), model.parameters(), strict=True))


def test_gradients_are_clipped(tables, tmp_path):
    """One step of plain descent moves the weights by the rate times the clipped norm."""
    rate, clip = 0.5, 1e-3
    plain = tiny(tables[2], 2, steps=1, precision="float64", log_every=1)
    own = weights_after(
        replace(plain, scheme=Plain(optimiser=SGD(rate=rate), schedule=Constant(), clip=clip)), tmp_path / "run"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plain.seed)
        fresh = Model(plain.model).double().state_dict()
    moved = math.sqrt(sum(float((value - fresh[name[6:]]).square().sum()) for name, value in own.items()))
    assert lines(tmp_path / "run")[0]["gradient"] > 2 * clip
    assert moved == pytest.approx(rate * clip, rel=1e-2)  # torch adds 1e-6 to the norm


# ---- the pairs


def test_a_pair_depends_on_the_seed_and_its_number_alone(tables):
    training = rich(tables[2], 2)
    one, two = stream_of(training), stream_of(training)
    pairs = [one.pair(n) for n in range(6)]
    for n in (5, 2, 0):
        again = two.pair(n)
        assert again.names == pairs[n].names
        assert torch.equal(again.fixed, pairs[n].fixed)
        assert torch.equal(again.moving, pairs[n].moving)
    assert len({float(pair.fixed.sum()) for pair in pairs}) == 6
    other = stream_of(replace(training, seed=6)).pair(0)
    assert not torch.equal(other.fixed, pairs[0].fixed)


def test_processes_share_the_stream_without_gap_or_overlap(tables):
    training = tiny(tables[2], 2, batch=2, accumulate=3)
    stream = stream_of(training)
    expected = [stream.pair(n).names[0] for n in range(36)]
    found = [
        name
        for step in range(3)
        for rank in range(2)
        for batch in stream.step(step, Processes(rank, 2))
        for name in batch.names
    ]
    assert found == expected
    assert len(list(stream.steps(1, 3, Processes()))) == 2
    assert list(stream.steps(3, 3, Processes())) == []
