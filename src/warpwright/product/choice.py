"""What a person asks for, by names and a file, as the settings of a registration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from warpwright.config import KIND, from_mapping, merged, read_mapping, to_mapping
from warpwright.energies.similarity import Similarity
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.methods import Settings, preset
from warpwright.product.choices import Initialise, Kind, Preset, SimilarityName

__all__ = ["TRANSFORMS", "Choice", "check_window", "kind_of"]

T = TypeVar("T")
INTENSITIES = "intensities"  # a key that only a file for a model of features has
LINEAR = ("rigid", "affine")
TRANSFORMS: dict[str, Kind] = {name: name for name in ("greedy", "displacement", "velocity", "bspline")}
SIMILARITIES: dict[str, SimilarityName] = {"lncc": "lncc", "mse": "mse", "mutualinformation": "mi", "mind": "mind"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a person asks for; `settings` is what it means for an image. None leaves it to the file or the preset.

    The preset is balanced unless another one is asked for.
    """

    transform: Kind | None = None
    similarity: SimilarityName | None = None
    preset: Preset | None = None
    initialise: Initialise | None = None
    config: str | Path | None = None

    def settings(self, grid: Grid, but: Collection[str] = ()) -> Settings:
        """The settings of the preset for a fixed grid, with those of the file laid over them.

        A kind of transform or similarity that only the file names, or its `matching`, chooses the preset as its name would.

        Args:
            grid: of the fixed image.
            but: keys of the file that are meant for something else.

        Raises:
            BadInput: the file cannot be read, holds an unknown key or one for a model of features, a value of another type or
                out of range, or something else than a name that was asked for.
        """
        found, where = self.read()
        found = {key: value for key, value in found.items() if key not in but}
        if INTENSITIES in found:
            raise BadInput(f"{where}: its {INTENSITIES!r} is for a model of features: expected such a model, or no such key")
        chosen = preset(
            self.preset or "balanced",
            grid.spacing,
            transform=self.transform or TRANSFORMS.get(kind_of(found, "deformable"), "greedy"),
            similarity=self.similarity or SIMILARITIES.get(kind_of(found, "similarity")),
            initialise=self.initialise or ("matching" if found.get("matching") is not None else None),
        )
        return self.over(chosen, found, where)

    def read(self) -> tuple[Mapping[str, Any], str]:
        """What the file holds, nothing without one, and what a message calls it.

        Raises:
            BadInput: it cannot be read.
        """
        return ({}, "settings") if self.config is None else _read(self.config)

    def over(self, chosen: T, found: Mapping[str, Any], where: str) -> T:
        """Settings with what is found in the file laid over them.

        Raises:
            BadInput: as for `settings`.
        """
        base = to_mapping(chosen)
        self._agree(found, base)
        return from_mapping(type(chosen), merged(base, found), where=where) if found else chosen

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


def check_window(similarity: Similarity, spacing: Sequence[float], where: str) -> None:
    """That a similarity is one for images of so many axes.

    Args:
        similarity: of any kind.
        spacing: mm of a voxel along each axis.
        where: what a message calls the similarity.

    Raises:
        BadInput: its window is for another number of axes.
    """
    try:
        similarity.for_spacing(spacing)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def kind_of(found: Mapping[str, Any], key: str) -> str:
    """The kind that a table of settings says it is; "" for none."""
    value = found.get(key)
    return str(value.get(KIND, "")) if isinstance(value, Mapping) else ""


def _same_kind(found: Any, asked: Any) -> bool:
    """Whether tables are of the same kind, lists of tables of the same kinds, other values equal."""
    if isinstance(found, Mapping) and isinstance(asked, Mapping):
        return found.get(KIND, asked.get(KIND)) == asked.get(KIND)
    if isinstance(found, list) and isinstance(asked, list):
        return len(found) == len(asked) and all(_same_kind(f, a) for f, a in zip(found, asked, strict=True))
    return found == asked
