from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from warpwright.config import to_mapping
from warpwright.energies.losses import Images, Overlap, Smoothness
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput, Failed
from warpwright.layers import DrawVelocity, FullSize, Integrate
from warpwright.methods import Model, ModelSettings
from warpwright.networks import VoxelMorph, VoxelMorphDiff
from warpwright.networks.scoring import VoxelMap
from warpwright.product.info import describe
from warpwright.product.model_folder import packed, read_model, unpacked, write_model
from warpwright.sampling import Window
from warpwright.transforms import Preparation

FILES = {"weights.safetensors", "model.json", "README.md"}
SUMMARY = {"step": 7, "steps": 9, "validation": {"dice": 0.5}}


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def settings(dim: int, scale: float = 0.25) -> ModelSettings:
    return ModelSettings(
        dim=dim,
        channels=2,
        network=VoxelMorph(form="vm2", half_resolution=True, scale=scale),
        layers=(Integrate(steps=5, downsize=2, inverse=False), FullSize()),
        preparation=Preparation(intensity=Window(low=-100.0, high=300.0), spacing=(1.0, 2.0, 0.5)[:dim], start="none"),
        loss=(Images(similarity=MSE()), Smoothness(on="velocity", weight=0.3), Overlap(labels=(1, 4))),
        directions="forward",
    )


def fresh(chosen: ModelSettings, seed: int = 3) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(chosen)


def written(folder: Path, dim: int = 2, seed: int = 3) -> Model:
    model = fresh(settings(dim), seed)
    write_model(folder, model, card="# A card\n", summary=SUMMARY)
    return model


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path, error: type[Exception] = BadInput) -> str:
    """The sentence, one line that names the place."""
    with pytest.raises(error) as caught:
        read_model(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(folder) in sentence
    return sentence


def test_round_trip_keeps_settings_and_weights_to_the_bit(dim, tmp_path):
    model = written(tmp_path / "model", dim)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    found = read_model(str(tmp_path / "model"))
    assert found.model.settings == model.settings
    assert not found.model.training
    assert found.path == tmp_path / "model"
    assert found.summary == SUMMARY
    weights, own = model.state_dict(), found.model.state_dict()
    assert list(weights) == list(own)
    assert all(torch.equal(weights[name], own[name]) for name in weights)
    assert found.digest == hashlib.sha256((tmp_path / "model" / "weights.safetensors").read_bytes()).hexdigest()
    assert (tmp_path / "model" / "README.md").read_text() == "# A card\n"


def test_buffers_are_weights_too(tmp_path):
    from warpwright.networks import FCNSS

    model = fresh(ModelSettings(dim=2, network=FCNSS(), layers=(FullSize(),), loss=(Images(similarity=MSE()),)))
    generator = torch.Generator().manual_seed(0)
    for buffer in model.buffers():
        buffer.copy_(torch.randint(1, 9, buffer.shape, generator=generator).to(buffer.dtype))
    write_model(tmp_path / "model", model, card="", summary={})
    own = read_model(tmp_path / "model").model.state_dict()
    assert any("running_var" in name for name in own)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_the_weights_are_plain_safetensors(tmp_path):
    model = written(tmp_path / "model")
    theirs = load_file(tmp_path / "model" / "weights.safetensors")
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in "ab":
        written(tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    read = read_model(tmp_path / "a")
    write_model(tmp_path / "c", read.model, card="# A card\n", summary=read.summary)
    assert tree(tmp_path / "a") == tree(tmp_path / "c")


def test_a_model_of_float64_comes_back_in_float32(tmp_path):
    model = fresh(settings(2)).to(torch.float64)
    write_model(tmp_path / "model", model, card="", summary={})
    own = read_model(tmp_path / "model").model.state_dict()
    assert all(torch.equal(value.to(torch.float32), own[name]) for name, value in model.state_dict().items())


def test_a_second_model_replaces_the_first_and_leaves_other_files(tmp_path):
    written(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "model" / "scores").mkdir()
    (tmp_path / "model" / "scores" / "a.txt").write_text("mine too")
    second = written(tmp_path / "model", seed=4)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES | {"notes.txt", "scores"}
    assert (tmp_path / "model" / "scores" / "a.txt").read_text() == "mine too"
    own = read_model(tmp_path / "model").model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in second.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("size", [0x80, 0x280, 0x480])
def test_a_header_whose_length_begins_like_a_pickle_is_none(size, tmp_path):
    """The first byte of a safetensors file is the low one of its header's length: 0x80 in one file of 32."""
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    plain = save(tensors)
    known = int.from_bytes(plain[:8], "little")
    assert known <= size
    raw = struct.pack("<Q", size) + plain[8 : 8 + known] + b" " * (size - known) + plain[8 + known :]
    assert raw.startswith(b"\x80")
    found, metadata = unpacked(raw, tmp_path / "x")
    assert torch.equal(found["a"], tensors["a"])
    assert metadata == {}
    with pytest.raises(BadInput, match="damaged"):
        unpacked(raw[:-1], tmp_path / "x")


def test_metadata_come_back(tmp_path):
    raw = packed({"b": torch.tensor(2, dtype=torch.int64), "a": torch.zeros(0, 3)}, {"key": "väl\nue"})
    found, metadata = unpacked(raw, tmp_path / "x")
    assert metadata == {"key": "väl\nue"}
    assert found["b"].shape == ()
    assert found["a"].shape == (0, 3)


# ---- places that are no model folder


def test_a_missing_folder(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none")


def test_a_file(tmp_path):
    written(tmp_path / "model")
    assert "is a file" in refusal(tmp_path / "model" / "weights.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl"])
def test_a_pickle_in_place_of_a_folder(suffix, tmp_path):
    torch.save({"payload": Payload(tmp_path / "executed")}, tmp_path / f"model{suffix}")
    assert "may run code" in refusal(tmp_path / f"model{suffix}")
    assert not (tmp_path / "executed").exists()


def test_a_folder_with_a_pickle(tmp_path):
    (tmp_path / "model").mkdir()
    torch.save({"payload": Payload(tmp_path / "executed")}, tmp_path / "model" / "best.pt")
    sentence = refusal(tmp_path / "model")
    assert "best.pt" in sentence
    assert "may run code" in sentence
    assert not (tmp_path / "executed").exists()


def test_an_empty_folder(tmp_path):
    assert "model.json" in refusal(tmp_path)


def test_a_folder_without_weights(tmp_path):
    written(tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    assert "weights.safetensors: does not exist" in refusal(tmp_path / "model")


def test_weights_that_are_a_folder(tmp_path):
    written(tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    (tmp_path / "model" / "weights.safetensors").mkdir()
    assert "cannot be read" in refusal(tmp_path / "model")


# ---- weights that are something else


def resealed(folder: Path, raw: bytes) -> None:
    """Put other bytes in the place of the weights, with their digest."""
    (folder / "weights.safetensors").write_bytes(raw)
    config = json.loads((folder / "model.json").read_text())
    config["sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / "model.json").write_text(json.dumps(config))


def zipped(payload: Payload, folder: Path) -> bytes:
    torch.save({"weights": payload}, folder / "zip")
    return (folder / "zip").read_bytes()


def legacy(payload: Payload, folder: Path) -> bytes:
    torch.save({"weights": payload}, folder / "legacy", _use_new_zipfile_serialization=False)
    return (folder / "legacy").read_bytes()


PICKLES: dict[str, Callable[[Payload, Path], bytes]] = {
    "torch.save": zipped,
    "torch.save of old": legacy,
    **{f"protocol {n}": (lambda payload, _, n=n: pickle.dumps(payload, protocol=n)) for n in range(6)},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_pickled_weights_are_refused_and_never_executed(kind, tmp_path):
    written(tmp_path / "model")
    payload = Payload(tmp_path / "executed")
    raw = PICKLES[kind](payload, tmp_path)
    resealed(tmp_path / "model", raw)
    sentence = refusal(tmp_path / "model")
    assert ("no safetensors" if kind in ("protocol 0", "protocol 1") else "is a pickle") in sentence  # those are bare text
    assert not (tmp_path / "executed").exists()
    if kind.startswith("protocol"):  # it would have worked
        pickle.loads(raw)
        assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("length", [0, 1, 60, -100, -1])
def test_truncated_weights(length, tmp_path):
    written(tmp_path / "model")
    raw = (tmp_path / "model" / "weights.safetensors").read_bytes()
    (tmp_path / "model" / "weights.safetensors").write_bytes(raw[:length])
    assert "damaged" in refusal(tmp_path / "model")
    resealed(tmp_path / "model", raw[:length])
    assert "damaged" in refusal(tmp_path / "model")


def test_noise_in_place_of_weights(tmp_path):
    written(tmp_path / "model")
    rng = np.random.default_rng(0)
    for _ in range(20):
        with pytest.raises(BadInput, match="weights"):
            unpacked(rng.bytes(300), tmp_path / "weights")
    resealed(tmp_path / "model", rng.bytes(300))
    refusal(tmp_path / "model")


def test_weights_of_another_model_of_the_same_kind(tmp_path):
    written(tmp_path / "a", seed=1)
    written(tmp_path / "b", seed=2)
    (tmp_path / "a" / "weights.safetensors").write_bytes((tmp_path / "b" / "weights.safetensors").read_bytes())
    assert "SHA-256" in refusal(tmp_path / "a")


def test_one_bit_that_fell_over(tmp_path):
    written(tmp_path / "model")
    raw = bytearray((tmp_path / "model" / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "model" / "weights.safetensors").write_bytes(raw)
    assert "SHA-256" in refusal(tmp_path / "model")


def other_shape(weights: dict[str, torch.Tensor]) -> None:
    name = next(iter(weights))
    weights[name] = torch.zeros(1, *weights[name].shape)


def one_less(weights: dict[str, torch.Tensor]) -> None:
    weights.pop(next(iter(weights)))


def one_more(weights: dict[str, torch.Tensor]) -> None:
    weights["another"] = torch.zeros(2)


@pytest.mark.parametrize("change", [other_shape, one_less, one_more])
def test_weights_of_another_architecture(change, tmp_path):
    weights = dict(written(tmp_path / "model").state_dict())
    change(weights)
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "other")
    resealed(tmp_path / "model", (tmp_path / "other").read_bytes())
    assert "another architecture" in refusal(tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value, tmp_path):
    weights = dict(written(tmp_path / "model").state_dict())
    name = list(weights)[-1]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] = value
    resealed(tmp_path / "model", packed(weights))
    sentence = refusal(tmp_path / "model")
    assert name in sentence
    assert "NaN" in sentence


# ---- settings


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "model.json").read_text())
    change(config)
    (folder / "model.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["settings"].update(chanels=3), ["unknown key 'chanels'", "did you mean 'channels'"]),
        (lambda c: c["settings"]["network"].update(scal=1), ["settings.network", "unknown key 'scal'", "did you mean 'scale'"]),
        (lambda c: c["settings"]["network"].update(kind="voxelmorf"), ["did you mean 'voxelmorph'"]),
        (lambda c: c["settings"].update(dim=4), ["2 or 3 axes", "4"]),
        (lambda c: c["settings"].update(layers="x"), ["settings.layers", "'x'"]),
        (lambda c: c.update(settings=[]), ["no table of settings"]),
        (lambda c: c.pop("settings"), ["no table of settings"]),
        (lambda c: c.update(format=3, warpwright="9.1"), ["format 3", "9.1", "reads format 2"]),
        (lambda c: c.update(format=1), ["format 1", "reads format 2"]),
        (lambda c: c.update(format="2"), ["format '2'"]),
        (lambda c: c.update(format=True), ["format True"]),
        (lambda c: c.pop("format"), ["format None"]),
        (lambda c: c.pop("sha256"), ["SHA-256"]),
        (lambda c: c["settings"].update(to_mapping(settings(2, 0.5))), ["another architecture"]),
        (lambda c: c["settings"].update(to_mapping(settings(3))), ["another architecture"]),
    ],
)
def test_settings_that_cannot_be_used(change, words, tmp_path):
    written(tmp_path / "model")
    edited(tmp_path / "model", change)
    sentence = refusal(tmp_path / "model")
    assert all(word in sentence for word in words), sentence


def test_the_nearest_kind_of_a_layer_is_named(tmp_path):
    model = fresh(ModelSettings(dim=2, network=VoxelMorphDiff(scale=0.25), layers=(DrawVelocity(), Integrate(), FullSize())))
    write_model(tmp_path / "model", model, card="", summary={})
    edited(tmp_path / "model", lambda c: c["settings"]["layers"][0].update(kind="drawvelocities"))
    assert "did you mean 'drawvelocity'" in refusal(tmp_path / "model")


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff\xfe", b'{"format": 1'])
def test_a_file_of_settings_that_is_no_json(raw, tmp_path):
    written(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_bytes(raw)
    refusal(tmp_path / "model")


def test_other_keys_beside_the_settings_do_not_matter(tmp_path):
    written(tmp_path / "model")
    edited(tmp_path / "model", lambda c: c.update(note="mine", summary=3))
    assert read_model(tmp_path / "model").summary == {}


# ---- a score beside the model


def score_of(dim: int, seed: int = 5) -> VoxelMap:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VoxelMap(dim, 2, 0.25)


def written_with_score(folder: Path, dim: int = 2, seed: int = 5) -> VoxelMap:
    network = score_of(dim, seed)
    write_model(folder, fresh(settings(dim)), card="# A card\n", summary=SUMMARY, score=network)
    return network


def test_a_score_comes_back_to_the_bit(dim, tmp_path):
    network = written_with_score(tmp_path / "model", dim).double()
    written(tmp_path / "plain", dim)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES | {"score.safetensors"}
    found, plain = (read_model(tmp_path / name) for name in ("model", "plain"))
    assert plain.score is None
    assert found.score is not None
    assert found.digest == plain.digest
    assert not found.score.network.training
    weights = found.score.network.state_dict()
    assert all(torch.equal(value.float(), weights[name]) for name, value in network.state_dict().items())
    assert found.score.digest == hashlib.sha256((tmp_path / "model" / "score.safetensors").read_bytes()).hexdigest()
    assert describe(tmp_path / "model")["score_sha256"] == found.score.digest
    assert "score_sha256" not in describe(tmp_path / "plain")
    images = torch.rand(1, 2, *(9, 8, 7)[:dim])
    with torch.no_grad():
        assert torch.equal(found.score.network.scores(images), network.float().scores(images))
    summary, score = found.summary, found.score.network
    write_model(tmp_path / "again", found.model, card="# A card\n", summary=summary, score=score)
    assert tree(tmp_path / "again") == tree(tmp_path / "model")


def test_a_model_without_a_score_leaves_none_of_an_older_one(tmp_path):
    written_with_score(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    written(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES | {"notes.txt"}
    assert read_model(tmp_path / "model").score is None


def swapped(folder: Path) -> None:
    written_with_score(folder.parent / "other", seed=6)
    (folder / "score.safetensors").write_bytes((folder.parent / "other" / "score.safetensors").read_bytes())


def resealed_score(folder: Path, raw: bytes) -> None:
    (folder / "score.safetensors").write_bytes(raw)
    edited(folder, lambda c: c["score"].update(sha256=hashlib.sha256(raw).hexdigest()))


def broken_score(folder: Path) -> None:
    weights = {name: torch.full_like(value, float("nan")) for name, value in score_of(2).state_dict().items()}
    resealed_score(folder, packed(weights))


def pickled_score(folder: Path) -> None:
    resealed_score(folder, zipped(Payload(folder.parent / "executed"), folder.parent))


BAD_SCORES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "missing": (lambda f: (f / "score.safetensors").unlink(), ["score.safetensors: does not exist"]),
    "truncated": (lambda f: (f / "score.safetensors").write_bytes(b"1234"), ["score.safetensors", "damaged"]),
    "of another": (swapped, ["score.safetensors", "SHA-256"]),
    "NaN": (broken_score, ["score.safetensors", "NaN"]),
    "a pickle": (pickled_score, ["score.safetensors", "is a pickle"]),
    "of another width": (lambda f: edited(f, lambda c: c["score"]["settings"].update(scale=0.5)), ["another architecture"]),
    "without a width": (lambda f: edited(f, lambda c: c["score"]["settings"].clear()), ["score.settings", "scale"]),
    "far too wide": (lambda f: edited(f, lambda c: c["score"]["settings"].update(scale=1e5)), ["another architecture"]),
    "of no width": (lambda f: edited(f, lambda c: c["score"]["settings"].update(scale=0)), ["score.settings", "above 0"]),
    "unknown key": (lambda f: edited(f, lambda c: c["score"]["settings"].update(scal=1)), ["unknown key 'scal'"]),
    "no settings": (lambda f: edited(f, lambda c: c["score"].pop("settings")), ["its score has no table of settings"]),
    "no table": (lambda f: edited(f, lambda c: c.update(score=3)), ["its score has no table of settings"]),
    "no digest": (lambda f: edited(f, lambda c: c["score"].pop("sha256")), ["score.safetensors", "SHA-256"]),
}


@pytest.mark.parametrize("what", BAD_SCORES)
def test_a_score_that_cannot_be_used(what, tmp_path):
    written_with_score(tmp_path / "model")
    change, words = BAD_SCORES[what]
    change(tmp_path / "model")
    found = read_model(tmp_path / "model")  # a model is used without its score
    with pytest.raises(BadInput) as caught:
        assert found.score
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "executed").exists()


# ---- places that cannot be written


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(BadInput, match="file"):
            written(place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def full_after(count: int) -> Callable[[Path, bytes], int]:
    """`Path.write_bytes` on a disk that has room for so many bytes."""

    def write(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:count])
        raise OSError(errno.ENOSPC, "No space left on device")

    return write


def test_a_full_disk_leaves_the_old_model_whole(tmp_path, monkeypatch):
    first = written(tmp_path / "model")
    before = tree(tmp_path / "model")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_after(100))
        with pytest.raises(Failed, match="No space left") as caught:
            written(tmp_path / "model", seed=4)
    assert str(tmp_path / "model") in str(caught.value)
    assert tree(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    own = read_model(tmp_path / "model").model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in first.state_dict().items())


def test_the_files_of_two_models_are_never_seen_together(tmp_path, monkeypatch):
    """Wherever a process ends while it renames, what is there under the folder's name is a whole model or nothing."""
    written(tmp_path / "model")
    real, moves = Path.rename, []

    def counted(path: Path, target: Path) -> Path:
        moves.append(path)
        found = real(path, target)
        if (tmp_path / "model").exists():
            read_model(tmp_path / "model")
        return found

    monkeypatch.setattr(Path, "rename", counted)
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("files were moved one by one"))
    written(tmp_path / "model", seed=4)
    assert len(moves) == 2


def test_a_full_disk_leaves_nothing_of_a_new_model(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Failed, match="No space left"):
        written(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
