"""DiffuseMorph: a network that finds the noise in the fixed image, and one that makes a displacement of what was found.

Kim et al., ECCV 2022 (arXiv 2112.05149). Layer tables, numbers of weights and the schedule of the noise are those of the
authors' code. Images are taken as they come, most preparations lay them in [0, 1] (as AdaCS, ECCV 2024, does for this network);
the original has them in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.diffusion_score import ScoreUNet
from warpwright.networks.estimate import Displacement
from warpwright.networks.layers import CONVOLUTION, TRANSPOSED, Block, Chain, crop
from warpwright.networks.widths import check_scale, scaled

__all__ = ["DiffuseMorph", "DiffuseMorphNetwork", "noise_levels"]

INNER = {2: 64, 3: 8}
ENCODER = {2: (64, 128, 256, 512, 1024), 3: (16, 32, 32, 32, 32)}
DECODER = {2: (1024, 512, 256, 128, 64), 3: (32, 32, 32, 8, 8)}
CONVOLUTIONS = {2: 2, 3: 1}  # to a stage of the deformation's network
SLOPE = 0.2
DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class DiffuseMorph(Architecture):
    """A displacement at full resolution.

    In training mode the noise of a random step of a diffusion is laid over the fixed image, and the score's network is to find
    it; how far it is from it goes with the estimate (`energies.losses.Noise`). The deformation's network makes the displacement
    of the moving image and of what was found. In evaluation mode the score's network is given the fixed image as it is.

    Every call draws from torch's generator, a step and noise for each pair; so do both calls of a loss that looks both ways.

    Args:
        inner: width of the score's network at full resolution, even; by default 64 in 2-D and 8 in 3-D.
        scale: factor of all widths of the deformation's network.
        steps: of the diffusion.
        first: variance of the noise that its first step adds; those of the others lie on a line.
        last: variance of that of its last step.

    Raises:
        BadInput: the inner width is not even and positive, the scale not positive and finite, there is no step, or variances
            fall or do not lie in (0, 1).
    """

    inner: int | None = None
    scale: float = 1.0
    steps: int = 2000
    first: float = 1e-6
    last: float = 1e-2

    def __post_init__(self) -> None:
        if self.inner is not None and (self.inner < 2 or self.inner % 2):
            raise BadInput(f"the inner width of a DiffuseMorph must be even and at least 2, got {self.inner}")
        check_scale(self, self.scale)
        if self.steps < 1:
            raise BadInput(f"the diffusion of a DiffuseMorph needs at least 1 step, got {self.steps}")
        if not 0 < self.first <= self.last < 1:
            raise BadInput(f"the noise of a DiffuseMorph must have 0 < first <= last < 1, got {self.first} and {self.last}")

    def build(self, dim: int, channels: int = 1) -> DiffuseMorphNetwork:
        return DiffuseMorphNetwork(self, dim, channels)


class DiffuseMorphNetwork(Estimator):
    """See `DiffuseMorph`."""

    levels: Tensor

    def __init__(self, settings: DiffuseMorph, dim: int, channels: int) -> None:
        super().__init__()
        self.score = ScoreUNet(dim, 3 * channels, channels, settings.inner or INNER[dim])
        self.deformation = DeformationUNet(dim, channels, settings.scale)
        levels = noise_levels(settings.steps, settings.first, settings.last)
        self.register_buffer("levels", levels.to(torch.get_default_dtype()), persistent=False)

    def forward(self, fixed: Tensor, moving: Tensor) -> Displacement:
        if not self.training:
            (found,) = self.path(fixed, moving, (1.0,))
            return replace(found, noise_error=fixed.new_zeros(len(fixed)))
        at = torch.randint(self.levels.shape[1], (len(fixed),), device=fixed.device)
        noise = torch.randn_like(fixed)
        kept, added = self.levels[:, at].reshape(2, -1, *(1,) * (fixed.ndim - 1))
        score = self.score(torch.cat((moving, fixed, kept * fixed + added * noise), 1), at)
        return replace(self._deformed(moving, score), noise_error=(noise - score).square().flatten(1).mean(1))

    def path(self, fixed: Tensor, moving: Tensor, shares: Sequence[float]) -> tuple[Displacement, ...]:
        """Displacements on a continuous way to the one that evaluation gives, from one look of the score's network.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
            shares: how much of the score the deformation's network sees, each in [0, 1]; 1 is the whole way. At 0 it sees the
                moving image alone, of which it need not make zero.

        Raises:
            BadInput: a share lies outside.
        """
        for share in shares:
            if not 0 <= share <= 1:
                raise BadInput(f"a share of a DiffuseMorph's path must lie in 0 to 1, got {share}")
        at = torch.zeros(len(fixed), dtype=torch.long, device=fixed.device)
        score = self.score(torch.cat((moving, fixed, fixed), 1), at)
        return tuple(self._deformed(moving, share * score) for share in shares)

    def _deformed(self, moving: Tensor, score: Tensor) -> Displacement:
        shape = tuple(moving.shape[2:])
        values = self.deformation(torch.cat((moving, score), 1))
        return Displacement(values=values, shape=shape, factors=(1,) * len(shape))


def noise_levels(steps: int, first: float, last: float) -> Tensor:
    """What is left of an image and how much noise is in it at every step of a diffusion: (2, steps) float64.

    `sqrt(a_t)` and `sqrt(1 - a_t)` with `a_t = prod_(s <= t) (1 - b_s)`, the variances b on a line from first to last.
    """
    logarithms = torch.log1p(-torch.linspace(first, last, steps, dtype=torch.float64)).cumsum(0)
    return torch.stack((logarithms.exp(), -torch.expm1(logarithms))).sqrt()


class DeformationUNet(nn.Module):
    """Moving image and score (B, 2 C, *S) to a displacement (B, D, *S), voxels.

    Weights begin as N(0, 0.02), in narrower networks with so much more spread that as much goes through, biases at zero.
    """

    def __init__(self, dim: int, channels: int, scale: float) -> None:
        super().__init__()
        down, up = scaled(ENCODER[dim], scale), scaled(DECODER[dim], scale)
        coarsest, *skips = reversed(down)
        self.encoder = nn.ModuleList([_stage(dim, 2 * channels, down[0])])
        self.encoder.extend(_stage(dim, a, b, 2) for a, b in pairwise(down))
        before = (coarsest, *up[:2], up[3])
        self.decoder = nn.ModuleList(Up(dim, *widths) for widths in zip(before, skips, (*up[:3], up[4]), strict=True))
        self.between = _stage(dim, up[2], up[3])
        self.head = CONVOLUTION[dim](up[4], dim, 3, padding=1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=DEVIATION / scale**0.5)
            else:
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        features, skips = images, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        skips.pop()
        *coarse, finest = self.decoder
        for up in coarse:
            features = up(features, skips.pop())
        return self.head(finest(self.between(features), skips.pop()))


class Up(Block):
    """Twice the size by a transposed convolution, cropped to the skip and beside it, and a stage."""

    def __init__(self, dim: int, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.enlarge = TRANSPOSED[dim](inputs, inputs, 3, 2, 1, output_padding=1)
        self.stage = _stage(dim, inputs + skip, outputs)

    def compute(self, *inputs: Tensor) -> Tensor:
        features, skip = inputs
        return self.stage(torch.cat((crop(self.enlarge(features), skip.shape[2:]), skip), 1))


def _stage(dim: int, inputs: int, outputs: int, stride: int = 1) -> Chain:
    """Convolutions of three voxels and leaky rectifiers: (B, inputs, *T) to (B, outputs, *ceil(T / stride))."""
    layers: list[nn.Module] = []
    for k in range(CONVOLUTIONS[dim]):
        first = k == 0
        layers.append(CONVOLUTION[dim](inputs if first else outputs, outputs, 3, stride if first else 1, 1))
        layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    return Chain(*layers)
