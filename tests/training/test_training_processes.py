"""Two processes, started by `torchrun` on gloo, train as one with the doubled batch does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oracles.cohort import lines, tiny, tree, write_cohort, write_settings
from warpwright.energies.losses import Images
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.schemes import SGD, Adam, AdaptiveScoring, Constant, Likelihood, Plain
from warpwright.training import Training, Validation, train, trial
from warpwright.training.checkpoint import read_checkpoint
from warpwright.training.processes import LostProcess, Processes, processes

# each rank has an output of its own, so that a second writer would be seen; one launch serves several trainings and goes
# without numba, as what takes the time is to load torch and kernels
SCRIPT = """
import os, sys
sys.modules["numba"] = None
from warpwright.cli.main import main
rank = os.environ["RANK"]
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # a store of its own for each training, at a port of its own
for job in sys.argv[1:]:
    name, port = job.split(":")
    os.environ["MASTER_PORT"] = port
    code = main(["train", f"{name}.json", "--output", f"{name}-of-rank-{rank}", "--threads", "1", "--json"])
    if code:
        sys.exit(code)
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Training]:
    """One pair a process, five steps."""
    plain = tiny(
        write_cohort(tmp_path_factory.mktemp("cohort"), 3),
        3,
        steps=5,
        log_every=1,
        checkpoint_every=5,
        validation=Validation(every=5),
    )
    descent = Plain(optimiser=SGD(rate=0.3, momentum=0.9), schedule=Constant(), clip=1.0)
    loss = (Images(similarity=MSE()), *(term for term in plain.model.loss if not isinstance(term, Images)))
    scored = replace(descent, weighting=AdaptiveScoring(warmup=0.2, scale=0.25))
    likelihood = replace(descent, weighting=Likelihood(scale=0.25))
    return {
        "sgd": replace(plain, precision="float64", scheme=descent),
        "adacs": replace(plain, precision="float64", scheme=scored, model=replace(plain.model, loss=loss)),
        "nll": replace(plain, precision="float64", scheme=likelihood, model=replace(plain.model, loss=loss)),
        "adam": replace(plain, scheme=Plain(optimiser=Adam(rate=3e-3), schedule=Constant(), average=0.9), accumulate=2),
    }


@pytest.fixture(scope="module")
def two(trainings: dict[str, Training], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which two processes trained, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    for name, training in trainings.items():
        write_settings(folder / f"{name}.json", training)
    jobs = [f"{name}:{port}" for name, port in zip(trainings, free_ports(len(trainings)), strict=True)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py", *jobs]
    local = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=os.environ | local, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def one(trainings: dict[str, Training], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which one process trained, with batches twice as large."""
    folder = tmp_path_factory.mktemp("one")
    for name, training in trainings.items():
        train(replace(training, batch=2), folder / name)
    return folder


@pytest.mark.parametrize(("name", "apart"), [("sgd", 1e-9), ("adacs", 1e-9), ("nll", 1e-7)])  # which divides by a variance
def test_parameters_are_those_of_the_doubled_batch(one, two, name, apart):
    ours = read_checkpoint(two[0] / f"{name}-of-rank-0" / "checkpoint.safetensors")
    theirs = read_checkpoint(one / name / "checkpoint.safetensors")
    assert (ours.processes, theirs.processes) == (2, 1)
    assert set(ours.state) == set(theirs.state)
    assert {value.dtype for name, value in ours.state.items() if name.startswith("model.")} == {torch.float64}
    assert max(float((ours.state[name] - value).abs().max()) for name, value in theirs.state.items()) < apart
    weights = [value for name, value in theirs.state.items() if name.startswith("optimiser.")]
    assert max(float(value.abs().max()) for value in weights) > 1e-3  # there was something to agree on


def test_losses_of_adam_are_those_of_the_doubled_batch(one, two):
    ours, theirs = (lines(folder) for folder in (two[0] / "adam-of-rank-0", one / "adam"))
    assert [(row["kind"], row["step"]) for row in ours] == [(row["kind"], row["step"]) for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-4, rel=1e-4)


def test_only_the_first_process_writes_and_speaks(two):
    folder, said = two
    names = ("sgd", "adacs", "nll", "adam")
    for name in names:
        assert "model/weights.safetensors" in tree(folder / f"{name}-of-rank-0")
        assert not (folder / f"{name}-of-rank-1").exists()
    decoder, found = json.JSONDecoder(), []
    while said.strip():
        value, end = decoder.raw_decode(said.strip())
        found.append(value["output"])
        said = said.strip()[end:]
    assert found == [f"{name}-of-rank-0" for name in names]


def test_one_process_does_not_go_on_with_what_two_began(trainings, two):
    with pytest.raises(BadInput, match="was made by 2 processes, there are 1: expected as many"):
        train(trainings["sgd"], two[0] / "sgd-of-rank-0", resume=True)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a launch of one process."""
    given = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    for name, value in (given | {"MASTER_PORT": str(free_ports(1)[0])}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("alone")
def test_a_launch_of_one_process_is_one_process(trainings):
    with processes(torch.device("cpu")) as group:
        assert group == Processes(0, 1)
        assert group.first
    assert not torch.distributed.is_initialized()
    assert trial(trainings["adam"])["images"] == 6


def test_means_and_agreement_over_processes(monkeypatch):
    """The arithmetic, with a message that comes back as if another process had sent three times as much."""
    import torch.distributed as dist

    sizes: list[tuple[torch.dtype, int]] = []

    def doubled(message: torch.Tensor) -> None:
        sizes.append((message.dtype, message.numel()))
        message += 3 * message

    monkeypatch.setattr(dist, "all_reduce", doubled)
    group = Processes(0, 2)
    tensors = [torch.ones(2, 3), torch.tensor(2.0), torch.ones(4, dtype=torch.float64), torch.ones(3, 2).T]
    group.synchronise(tensors)
    assert [float(t.mean()) for t in tensors] == [2.0, 4.0, 2.0, 2.0]
    assert [tuple(t.shape) for t in tensors] == [(2, 3), (), (4,), (2, 3)]
    assert sizes == [(torch.float32, 13), (torch.float64, 4)]
    assert group.agree(True)
    assert not group.agree(False)
    sizes.clear()

    def gone(_: torch.Tensor) -> None:
        raise RuntimeError("[/pytorch/third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:5000")

    monkeypatch.setattr(dist, "all_reduce", gone)
    for call in (lambda: group.synchronise(tensors), lambda: group.agree(True)):
        with pytest.raises(LostProcess, match=r"another process of this training has ended: .* or --resume if it was killed"):
            call()
    Processes().synchronise(tensors)
    assert not Processes().agree(False)
    assert sizes == []
