"""Tests of settings and arguments that the generators share; each raises one sentence."""

from __future__ import annotations

from math import inf

from torch import Tensor

from warpwright.errors import BadInput

__all__ = ["check_at_least", "check_labels", "check_range", "check_shape", "check_share"]


def check_shape(shape: tuple[int, ...]) -> None:
    """A spatial shape has 2 or 3 axes of at least one voxel."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadInput(f"a synthetic image has 2 or 3 axes with at least one voxel each, got shape {tuple(shape)}")


def check_labels(labels: Tensor, shape: tuple[int, ...]) -> None:
    """A label map is (1, *shape) integers."""
    if tuple(labels.shape) != (1, *shape) or labels.is_floating_point():
        raise BadInput(f"labels must be integers of shape {(1, *shape)}, got {labels.dtype} of shape {tuple(labels.shape)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """A number is finite and not below a bound."""
    if not least <= value < inf:
        raise BadInput(f"{name} must be a number of at least {least}, got {value}")


def check_share(name: str, value: float) -> None:
    """A number lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise BadInput(f"{name} must be in [0, 1], got {value}")


def check_range(name: str, value: tuple[float, float], least: float) -> None:
    """Two finite numbers in order, the first not below a bound."""
    if not least <= value[0] <= value[1] < inf:
        raise BadInput(f"{name} must be two numbers in order, of at least {least}, got {value}")
