"""Model folders: `weights.safetensors`, `model.json` (settings, how it was trained, the digest of the weights), `README.md`.

Where training learned a score as well (`adaptivescoring`), its network is `score.safetensors`, and `model.json` has a table
`score` with its digest and settings. A model is used without it.

Nothing in a folder is code: weights are numbers, settings are strict JSON. Files that could run code when they are loaded are
refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from warpwright.config import from_mapping, read_mapping, to_mapping
from warpwright.errors import BadInput
from warpwright.methods import Model, ModelSettings
from warpwright.networks.scoring import VoxelMap
from warpwright.networks.widths import check_scale
from warpwright.product.output import plain, whole_folder

__all__ = ["CONFIG", "ModelFolder", "Score", "load_weights", "packed", "read_model", "unpacked", "write_model"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)  # the last counts batches
FORMAT = 2  # of the folder, one more whenever older folders cannot be read any longer; others are refused
WEIGHTS, SCORE, CONFIG, CARD = "weights.safetensors", "score.safetensors", "model.json", "README.md"
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
CODE = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))  # how files of torch.save and of pickle begin


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What makes the network of a score but its weights, and the axes and channels of the model's images.

    Args:
        scale: factor of all widths.
    """

    scale: float

    def __post_init__(self) -> None:
        check_scale(self, self.scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Score:
    """What says where residuals can be trusted.

    Args:
        network: of the fixed image as the model sees it; in evaluation mode, float32, on the CPU.
        digest: SHA-256 of its weights.
    """

    network: VoxelMap
    digest: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelFolder:
    """A model that was read.

    Args:
        model: in evaluation mode, float32, on the CPU.
        path: the folder.
        digest: SHA-256 of the weights.
        summary: how it was trained and how well it did, as the trainer wrote it.
        score_table: what `model.json` says of a score that was learned beside it, if it says anything.
    """

    model: Model
    path: Path
    digest: str
    summary: Mapping[str, Any]
    score_table: object

    @cached_property
    def score(self) -> Score | None:
        """What was learned beside the model of where residuals can be trusted, if anything was; read when it is asked for.

        Raises:
            BadInput: its weights are missing, damaged, those of another network or NaN.
        """
        return None if self.score_table is None else _score(self.score_table, self.path, self.model.settings)


def write_model(
    folder: str | Path, model: Model, *, card: str, summary: Mapping[str, Any], score: VoxelMap | None = None
) -> None:
    """Write a model folder, whole; a model that was there is replaced.

    Args:
        folder: where.
        model: settings and weights.
        card: Markdown: data, licence, intended use, scores.
        summary: plain values for `model.json`.
        score: for images like the model's, of one number a voxel.

    Raises:
        BadInput: the folder cannot be written.
        Failed: writing failed on the way (a full disk).
    """
    files = {WEIGHTS: packed(model.state_dict())}
    config = {
        "format": FORMAT,
        "warpwright": version("warpwright"),
        "sha256": hashlib.sha256(files[WEIGHTS]).hexdigest(),
        "settings": to_mapping(model.settings),
        "summary": plain(summary),
    }
    if score is not None:
        files[SCORE] = packed(score.state_dict())
        settings = to_mapping(ScoreSettings(scale=score.scale))
        config["score"] = {"sha256": hashlib.sha256(files[SCORE]).hexdigest(), "settings": settings}
    with whole_folder(folder, force=True, exchanged=(WEIGHTS, SCORE, CONFIG, CARD)) as work:
        for name, raw in files.items():
            (work / name).write_bytes(raw)
        (work / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (work / CARD).write_text(card, encoding="utf-8")


def read_model(folder: str | Path) -> ModelFolder:
    """Read a model folder.

    Raises:
        BadInput: it is no model folder, is damaged, was written by a later version, holds weights of another architecture,
            NaN, or a pickle in place of weights.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        hint = ", which may run code when it is loaded" if folder.suffix in PICKLES else ""
        raise BadInput(f"{folder}: {kind}{hint}; expected a model folder with {WEIGHTS} and {CONFIG}")
    if not (folder / CONFIG).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        found = f"holds {pickles[0]}, which may run code when it is loaded" if pickles else f"holds no {CONFIG}"
        raise BadInput(f"{folder}: {found}; expected a model folder with {WEIGHTS} and {CONFIG}")
    config = read_mapping(folder / CONFIG)
    settings = _settings(config, folder / CONFIG)
    tensors, digest = _sealed(folder / WEIGHTS, config)
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn first are not kept
        model = Model(settings)
    load_weights(model, tensors, str(folder / WEIGHTS))
    summary = config.get("summary")
    return ModelFolder(
        model=model.eval(),
        path=folder,
        digest=digest,
        summary=summary if isinstance(summary, Mapping) else {},
        score_table=config.get("score"),
    )


def _score(table: object, folder: Path, model: ModelSettings) -> Score:
    """The score that a table of `model.json` names."""
    if not isinstance(table, Mapping) or not isinstance(table.get("settings"), Mapping):
        raise BadInput(f"{folder / CONFIG}: its score has no table of settings, expected what `warpwright train` wrote")
    settings = from_mapping(ScoreSettings, table["settings"], where=f"{folder / CONFIG}: score.settings")
    tensors, digest = _sealed(folder / SCORE, table)
    with torch.device("meta"):  # nothing is allocated for weights that may not fit
        network = VoxelMap(model.dim, model.channels, settings.scale)
    load_weights(network, {key: value.float() for key, value in tensors.items()}, str(folder / SCORE), assign=True)
    return Score(network=network.eval(), digest=digest)


def _sealed(path: Path, table: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and its digest, which is the one that a table names."""
    raw = _bytes(path)
    tensors, _ = unpacked(raw, path)
    digest = hashlib.sha256(raw).hexdigest()
    if digest != table.get("sha256"):
        raise BadInput(f"{path}: its SHA-256 is not the one that {CONFIG} names, expected files that belong together")
    return tensors, digest


def _settings(config: Mapping[str, Any], path: Path) -> ModelSettings:
    found = config.get("format")
    if type(found) is not int or found != FORMAT:
        written = config.get("warpwright", "an unknown version")
        raise BadInput(f"{path}: has format {found!r} of {written}, this version reads format {FORMAT}")
    settings = config.get("settings")
    if not isinstance(settings, Mapping):
        raise BadInput(f"{path}: has no table of settings, expected a model that `warpwright train` wrote")
    return from_mapping(ModelSettings, settings, where=f"{path}: settings")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: does not exist, expected the weights of the model") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}), expected the weights of the model") from None


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors by name as the bytes of a safetensors file; the same tensors give the same bytes."""
    flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(flat, None if metadata is None else dict(metadata))


def unpacked(raw: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the bytes of a safetensors file.

    Raises:
        BadInput: they are something else; a pickle is named as such.
    """
    try:
        tensors = load(raw)
        size = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        if (
            raw.startswith(CODE) and raw[8:9] != b"{"
        ):  # the length of a header, which begins there, may have the same first bytes
            raise BadInput(f"{path}: is a pickle, which may run code when it is loaded, expected safetensors") from None
        raise BadInput(f"{path}: is damaged or no safetensors file ({error})") from None
    return tensors, metadata


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], name: str, *, assign: bool = False) -> None:
    """Put weights into a model or a network, all and only those that it has.

    Args:
        model: what they are for.
        tensors: by name.
        name: where they come from, for a message.
        assign: make them the model's own, as they are, which one on the device "meta" needs; otherwise they are copied.

    Raises:
        BadInput: names or shapes are those of another architecture, or a weight is not finite.
    """
    wanted = model.state_dict()
    strange = next((key for key, value in tensors.items() if value.dtype not in DTYPES), None)
    if strange is not None:
        raise BadInput(
            f"{name}: the weights {strange!r} are {tensors[strange].dtype}, expected floating point or whole numbers"
        )
    for key in [*wanted, *tensors]:
        if key not in tensors or key not in wanted or tensors[key].shape != wanted[key].shape:
            found, expected = (tuple(t[key].shape) if key in t else "nothing" for t in (tensors, wanted))
            raise BadInput(f"{name}: weights of another architecture, at {key!r} found {found}, expected {expected}")
    broken = next((key for key, value in tensors.items() if not bool(value.isfinite().all())), None)
    if broken is not None:
        raise BadInput(f"{name}: the weights {broken!r} hold NaN or inf, expected finite numbers")
    model.load_state_dict(dict(tensors), assign=assign)
