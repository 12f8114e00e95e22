"""Checkpoints: everything that the next step depends on, in one safetensors file that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from warpwright.errors import BadInput
from warpwright.io.atomic import replacing
from warpwright.product.model_folder import packed, unpacked

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]

FORMAT = 1
KEY = "warpwright"


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """A moment of a training run.

    Args:
        step: updates done.
        best: figure of the best model so far, less is better, or None.
        recent: figures of the steps since the last line of the log.
        state: of the scheme.
        settings: of the run, as plain values.
        processes: how many processes trained.
        cohort: digests of the images, see `resuming.cohort_digests`; none if an earlier version wrote it.
    """

    step: int
    best: float | None
    recent: Sequence[Mapping[str, float]]
    state: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    processes: int = 1
    cohort: Mapping[str, str] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; on any failure the one that was there stays whole.

    Raises:
        Failed: it could not be written (a full disk).
    """
    facts = {
        "format": FORMAT,
        "step": checkpoint.step,
        "best": checkpoint.best,
        "recent": list(checkpoint.recent),
        "settings": checkpoint.settings,
        "processes": checkpoint.processes,
        "cohort": checkpoint.cohort,
    }
    data = packed(checkpoint.state, {KEY: json.dumps(facts)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        BadInput: it is missing, damaged, or of a later version.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}), expected the checkpoint of an earlier run") from None
    state, metadata = unpacked(raw, path)
    try:
        facts = json.loads(metadata[KEY])
        found = facts["format"]
        if found != FORMAT:
            raise BadInput(f"{path}: is a checkpoint of format {found!r}, this version goes on from format {FORMAT}")
        return Checkpoint(
            step=int(facts["step"]),
            best=facts["best"],
            recent=facts.get("recent", ()),
            state=state,
            settings=facts["settings"],
            processes=int(facts["processes"]),
            cohort=dict(facts.get("cohort", {})),
        )
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: says nothing of a training run, expected a checkpoint of `warpwright train`") from None
