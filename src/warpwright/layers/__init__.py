"""Differentiable layers between a network and the displacement: `Estimate` in, `Estimate` out.

Every layer says which kinds it serves and refuses others with a sentence. A settings dataclass builds each layer.
"""

from warpwright.layers.base import FieldLayer, LayerSettings, Pipeline
from warpwright.layers.expected import Expected, WeightedGaussian
from warpwright.layers.integration import DrawVelocity, Integrate, Integration
from warpwright.layers.kernel_smoothing import KernelPenalty, KernelSmoothing, SmoothingKernel
from warpwright.layers.linear import LinearField
from warpwright.layers.mean_field import MeanField
from warpwright.layers.resizing import FullSize, SplineField, enlarged
from warpwright.layers.smooth_proper import Smoothed, SmoothProper, smooth_proper

AnyDistribution = Expected | MeanField | SmoothProper | WeightedGaussian
AnyLayer = SplineField | DrawVelocity | FullSize | Integrate | KernelSmoothing | LinearField | AnyDistribution

__all__ = [
    "AnyDistribution",
    "AnyLayer",
    "DrawVelocity",
    "Expected",
    "FieldLayer",
    "FullSize",
    "Integrate",
    "Integration",
    "KernelPenalty",
    "KernelSmoothing",
    "LayerSettings",
    "LinearField",
    "MeanField",
    "Pipeline",
    "SmoothProper",
    "Smoothed",
    "SmoothingKernel",
    "SplineField",
    "WeightedGaussian",
    "enlarged",
    "smooth_proper",
]
