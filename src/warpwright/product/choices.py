"""The words a person chooses from; nothing heavy is imported here, so that `--help` is quick.

`Kind`, `SimilarityName`, `Preset` and `Initialise` repeat `methods.settings`, which imports torch; a test keeps them equal.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Header", "Initialise", "Kind", "Photograph", "Preset", "Side", "SimilarityName", "Space"]

Kind: TypeAlias = Literal["rigid", "affine", "displacement", "greedy", "velocity", "bspline"]
SimilarityName: TypeAlias = Literal["lncc", "mse", "mi", "mind"]
Preset: TypeAlias = Literal["fast", "balanced", "accurate"]
Initialise: TypeAlias = Literal["none", "centre", "moments", "rigid", "affine", "matching"]
Header: TypeAlias = Literal["strict", "sform", "qform"]
Space: TypeAlias = Literal["ras", "lps", "voxel"]
Photograph: TypeAlias = Literal["fundus", "green", "grey"]
Side: TypeAlias = Literal["fixed", "moving"]
