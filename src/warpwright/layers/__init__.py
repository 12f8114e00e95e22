"""Differentiable layers between a network and the displacement: `Estimate` in, `Estimate` out.

Every layer says which kinds it serves and refuses others with a sentence. A settings dataclass builds each layer.
"""

from warpwright.layers.base import FieldLayer, LayerSettings, Pipeline
from warpwright.layers.integration import DrawVelocity, Integrate, Integration
from warpwright.layers.linear import LinearField
from warpwright.layers.resizing import FullSize, SplineField, enlarged

AnyLayer = SplineField | DrawVelocity | FullSize | Integrate | LinearField

__all__ = [
    "AnyLayer",
    "DrawVelocity",
    "FieldLayer",
    "FullSize",
    "Integrate",
    "Integration",
    "LayerSettings",
    "LinearField",
    "Pipeline",
    "SplineField",
    "enlarged",
]
