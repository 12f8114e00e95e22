"""The outcome of a solve: failure is a value with a sentence, one for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

__all__ = ["Solution", "Status"]


class Status(Enum):
    """How a sample's solve ended; the value is the sentence for a person."""

    CONVERGED = "the energy no longer falls"
    MAX_STEPS = "the number of steps was used up"
    DIVERGED = "the energy rose above where it began"
    NONFINITE = "the energy or its gradient became NaN or infinite; the last point with a finite energy is returned"


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of `minimise`.

    Args:
        value: the minimiser found, shape of x0.
        energy: (B,) energy of the last evaluated point of each sample: of `value`, but for a sample that failed, or that used
            up its steps with no evaluation after them.
        status: one for each sample.
        steps: steps taken by each sample.
        history: (T, B) energy before each step, and after the last one where it was taken; a sample that stopped repeats its
            last value.
    """

    value: Tensor
    energy: Tensor
    status: tuple[Status, ...]
    steps: tuple[int, ...]
    history: Tensor
