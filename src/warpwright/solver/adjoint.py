"""How a solution is differentiated in the parameters of its objective: a rule passed to `minimise`, never a mode."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Unroll"]


@dataclass(frozen=True)
class Unroll:
    """Differentiate through every step: exact for the algorithm as run, memory grows with the steps."""
