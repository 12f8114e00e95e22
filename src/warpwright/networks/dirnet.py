"""DIRNet: a convolutional encoder that gives the control points of a cubic B-spline.

Two forms: de Vos et al., DLMIA 2017 (arXiv 1704.06065), "paper", and the author's later package TorchIR, "torchir".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import ControlPoints
from warpwright.networks.layers import AVERAGE_POOL, BATCH_NORM, CONVOLUTION, AveragePool, Chain

__all__ = ["DIRNet"]

Form = Literal["paper", "torchir"]
KERNELS: dict[Form, int] = {"paper": 16, "torchir": 32}
CONVOLUTIONS: dict[Form, int] = {"paper": 0, "torchir": 5}  # at least; one to each halving in any case


@dataclass(frozen=True, kw_only=True)
class DIRNet(Architecture):
    """The displacements of control points, in voxels of the fixed image; all zero at the beginning.

    Convolutions of three voxels and average pooling by 2 until a feature stands for `spacing` voxels, then two convolutions of
    one voxel and a linear one; the only non-linearity is ELU. "paper" has batch normalisation and as many convolutions of three
    voxels as halvings; "torchir" has neither normalisation nor fewer than five such convolutions.

    The paper does not say how the last layer begins; it begins at zero in both forms, as in TorchIR.

    Args:
        form: "paper" or "torchir".
        spacing: voxels between control points, a power of two of at least 2.
        kernels: width of all hidden layers; by default 16 ("paper") or 32 ("torchir").

    Raises:
        BadInput: the spacing is not a power of two of at least 2, or there are no kernels.
    """

    form: Form = "torchir"
    spacing: int = 16
    kernels: int | None = None

    def __post_init__(self) -> None:
        if self.spacing < 2 or self.spacing & (self.spacing - 1):
            raise BadInput(f"the spacing of a DIRNet must be a power of two of at least 2, got {self.spacing}")
        if self.kernels is not None and self.kernels < 1:
            raise BadInput(f"a DIRNet must have at least 1 kernel, got {self.kernels}")

    def build(self, dim: int, channels: int = 1) -> DIRNetNetwork:
        return DIRNetNetwork(self, dim, channels)


class DIRNetNetwork(Estimator):
    """See `DIRNet`. Control point k of an axis of n voxels lies at voxel `(k - 1) * spacing`, k < (n - 1) // spacing + 4."""

    def __init__(self, settings: DIRNet, dim: int, channels: int) -> None:
        super().__init__()
        self.spacing = settings.spacing
        width = settings.kernels or KERNELS[settings.form]
        halvings = settings.spacing.bit_length() - 1

        def stage(inputs: int, size: int, *, halve: bool = False) -> Chain:
            norm = (BATCH_NORM[dim](width),) if settings.form == "paper" else ()
            pool = (AveragePool(2),) if halve else ()
            return Chain(CONVOLUTION[dim](inputs, width, size, padding=size // 2), *norm, nn.ELU(inplace=True), *pool)

        self.features = nn.Sequential(
            *(
                stage(width if k else 2 * channels, 3, halve=k < halvings)
                for k in range(max(halvings, CONVOLUTIONS[settings.form]))
            )
        )
        self.controls = nn.Sequential(stage(width, 1), stage(width, 1))
        self.head = CONVOLUTION[dim](width, dim, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, fixed: Tensor, moving: Tensor) -> ControlPoints:
        features = at_control_points(self.features(torch.cat((moving, fixed), 1)))
        shape = tuple(fixed.shape[2:])
        return ControlPoints(
            values=self.head(self.controls(features)),
            knots=(float(self.spacing),) * len(shape),
            of="displacement",
            shape=shape,
            factors=(1,) * len(shape),
        )


def at_control_points(features: Tensor) -> Tensor:
    """Features of the encoder, read where the control points are.

    Of an axis of n voxels the encoder leaves T = ceil(n / spacing) features; number j stands for the voxels around
    `(j + 1/2) * spacing - 1/2`. Control point k, at voxel `(k - 1) * spacing`, lies half-way between features k - 2 and k - 1
    (to within half a voxel) and gets their mean; beyond the ends the outermost feature goes on. That makes T + 3 points, as
    many as `(n - 1) // spacing + 4`.

    Args:
        features: (B, C, *T).

    Returns:
        (B, C, *K), K = T + 3.
    """
    dim = features.ndim - 2
    padded = nn.functional.pad(features, (2, 2) * dim, mode="replicate")
    return AVERAGE_POOL[dim](2, stride=1)(padded)
