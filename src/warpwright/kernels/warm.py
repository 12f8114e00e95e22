"""`python -m warpwright.kernels.warm`: compiles what the deformable stage needs, last things first.

Run beside the first registration on a machine (see `compile`), which meanwhile compiles from the other end.
"""

from __future__ import annotations

import torch

from warpwright.kernels import inversion, jacobian, separable, stepping, warping

__all__ = ["main"]


def main() -> None:
    """Call each kernel once on a few voxels."""
    field = torch.zeros(1, 3, 6, 6, 6)
    field[:, :, 3] = 1.4  # steep enough for every way of inverting
    ones = [torch.ones(6, dtype=torch.float64)] * 3
    inversion.invert(field, tolerance=1e-3, max_steps=15)
    jacobian.determinant(field)
    separable.window(field, [one[:2] for one in ones], ones, ones)
    mean, square = torch.zeros_like(field), torch.zeros_like(field[:, :1])
    stepping.adam(field, mean, square, step=1, length=1.0, beta1=0.8, beta2=0.99, damping=0.1)
    warping.warp(field, field, None, background=0.0)


if __name__ == "__main__":
    main()
