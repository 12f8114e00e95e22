"""Stationary velocity fields: exponential by scaling and squaring, logarithm, in voxels of one grid.

Reference: Arsigny et al., MICCAI 2006, doi 10.1007/11866565_113 (scaling and squaring); Bossa et al., MICCAI 2007,
doi 10.1007/978-3-540-75757-3_81 (the fixed-point form of the logarithm).
"""

from __future__ import annotations

from torch import Tensor

from warpwright.transforms.displacement import compose

__all__ = ["exp", "log"]


def exp(velocity: Tensor, steps: int = 7) -> Tensor:
    """Displacement reached after unit time, by `steps` squarings of a first-order small step.

    The error is of order one in the small step `velocity / 2**steps`. Differentiable.

    Args:
        velocity: (B, D, *S), voxels per unit time.
        steps: number of squarings.

    Returns:
        (B, D, *S), voxels.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def log(displacement: Tensor, *, steps: int = 7, iterations: int = 20, tolerance: float = 1e-3) -> tuple[Tensor, float]:
    """A velocity whose exponential is close to a displacement: `v <- v + exp(-v) o (Id + u)`, first-order BCH.

    Where that no longer helps (interpolation limits it), `v <- v + u - exp(v)` finishes.

    Args:
        displacement: (B, D, *S), voxels; should be invertible.
        steps: squarings inside `exp`.
        iterations: bound on the updates.
        tolerance: stop when the largest |exp(v) - u| is below, voxels.

    Returns:
        The velocity (B, D, *S) and the largest remaining |exp(v) - u|, voxels.
    """
    velocity = displacement
    reached = exp(velocity, steps)
    error = float((reached - displacement).abs().max())
    for _ in range(iterations):
        if error <= tolerance:
            break
        first_order = compose(exp(-velocity, steps), displacement)
        for update in (first_order, displacement - reached):  # the second is exact where interpolation limits the first
            trial = exp(velocity + update, steps)
            after = float((trial - displacement).abs().max())
            if after < error:
                velocity, reached, error = velocity + update, trial, after
                break
        else:
            break
    return velocity, error
