"""What every measure does with its input: tensors or arrays in, NumPy arrays of one shape out."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from warpwright.errors import BadInput

__all__ = ["Values", "as_array", "as_labels", "as_mask", "check_same_shape", "nan_mean"]

Values = Tensor | np.ndarray


def as_array(values: Values) -> np.ndarray:
    """A tensor (of any device) or an array as a NumPy array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def as_labels(values: Values, name: str) -> np.ndarray:
    """A label map of whole numbers, whatever its dtype.

    Raises:
        BadInput: a value is not a whole number.
    """
    array = as_array(values)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise BadInput(f"{name} must hold whole numbers, it holds fractions, NaN or inf")
    return array.astype(np.int64) if array.dtype.kind in "fb" else array


def as_mask(values: Values) -> np.ndarray:
    """True where a value is not zero."""
    return as_array(values) != 0


def check_same_shape(fixed: np.ndarray, moved: np.ndarray) -> None:
    """Raise BadInput unless both arrays have one shape."""
    if fixed.shape != moved.shape:
        raise BadInput(f"the fixed and the moved map must have the same shape, got {fixed.shape} and {moved.shape}")


def nan_mean(values: np.ndarray) -> float:
    """Mean of the values that are defined; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
