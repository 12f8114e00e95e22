"""From two images to a map: where images, energies and the solver meet."""

from warpwright.methods.deformable import AnyFamily, BSpline, Displacement, Family, Greedy, Velocity
from warpwright.methods.memory import needed
from warpwright.methods.register import register_pair
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.methods.settings import (
    AnySimilarity,
    Initialise,
    Linear,
    Preset,
    Settings,
    SimilarityName,
    TransformName,
    preset,
)

__all__ = [
    "AnyFamily",
    "AnySimilarity",
    "BSpline",
    "Displacement",
    "Family",
    "Greedy",
    "Initialise",
    "Linear",
    "Preset",
    "Progress",
    "Registration",
    "Settings",
    "SimilarityName",
    "Stage",
    "TransformName",
    "Velocity",
    "needed",
    "preset",
    "register_pair",
]
