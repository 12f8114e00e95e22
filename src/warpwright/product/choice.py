"""What a person asks for, by names and a file, as the settings of a registration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warpwright.config import KIND, from_mapping, merged, read_mapping, to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.methods import Settings, preset
from warpwright.product.choices import Initialise, Kind, Preset, SimilarityName

__all__ = ["Choice"]

LINEAR = ("rigid", "affine")
TRANSFORMS: dict[str, Kind] = {name: name for name in ("greedy", "displacement", "velocity", "bspline")}
SIMILARITIES: dict[str, SimilarityName] = {"lncc": "lncc", "mse": "mse", "mutualinformation": "mi", "mind": "mind"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a person asks for; `settings` is what it means for an image. None leaves it to the file or the preset."""

    transform: Kind | None = None
    similarity: SimilarityName | None = None
    preset: Preset = "balanced"
    initialise: Initialise | None = None
    config: str | Path | None = None

    def settings(self, grid: Grid) -> Settings:
        """The settings of the preset for a fixed grid, with those of the file laid over them.

        A kind of transform or similarity that only the file names, or its `matching`, chooses the preset as its name would.

        Raises:
            BadInput: the file cannot be read, holds an unknown key, a value of another type or out of range, or something
                else than a name that was asked for.
        """
        found, where = ({}, "settings") if self.config is None else _read(self.config)
        chosen = preset(
            self.preset,
            grid.spacing,
            transform=self.transform or TRANSFORMS.get(_kind(found, "deformable"), "greedy"),
            similarity=self.similarity or SIMILARITIES.get(_kind(found, "similarity")),
            initialise=self.initialise or ("matching" if found.get("matching") is not None else None),
        )
        base = to_mapping(chosen)
        self._agree(found, base)
        return from_mapping(Settings, merged(base, found), where=where) if found else chosen

    def _agree(self, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        """Refuse a file that says something else than a name that was asked for."""
        names = (
            ("similarity", "similarity", self.similarity),
            ("deformable", "transform", self.transform),
            ("linear", "transform", self.transform if self.transform in LINEAR else None),
            ("linear", "initialise", self.initialise),
            ("start", "initialise", self.initialise),
        )
        if self.initialise not in (None, "matching") and found.get("matching") is not None:
            wish = f"--initialise {self.initialise} asks for"
            raise BadInput(f"{self.config}: its 'matching' is not what {wish}, expected one of the two")
        for key, flag, name in names:
            if name is not None and key in found and not _same_kind(found[key], asked[key]):
                raise BadInput(f"{self.config}: its {key!r} is not what --{flag} {name} asks for, expected one of the two")


def _read(path: str | Path) -> tuple[Mapping[str, Any], str]:
    """The settings of a file, which may be the `result.json` of an earlier registration, and what a message calls them."""
    found = read_mapping(path)
    inner = found.get("settings")
    return (inner, f"{path}.settings") if isinstance(inner, Mapping) else (found, str(path))


def _kind(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return str(value.get(KIND, "")) if isinstance(value, Mapping) else ""


def _same_kind(found: Any, asked: Any) -> bool:
    """Whether tables are of the same kind, lists of tables of the same kinds, other values equal."""
    if isinstance(found, Mapping) and isinstance(asked, Mapping):
        return found.get(KIND, asked.get(KIND)) == asked.get(KIND)
    if isinstance(found, list) and isinstance(asked, list):
        return len(found) == len(asked) and all(_same_kind(f, a) for f, a in zip(found, asked, strict=True))
    return found == asked
