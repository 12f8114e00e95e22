"""From two images to a map: where images, energies and the solver meet."""

from warpwright.methods.batch_loss import Losses, batch_loss
from warpwright.methods.deformable import AnyFamily, BSpline, Displacement, Family, Greedy, Velocity
from warpwright.methods.direct import register_direct
from warpwright.methods.memory import needed
from warpwright.methods.model import Model, ModelSettings, predict_both
from warpwright.methods.multistep import Antisymmetric, AnyNetwork, AtScale, Direct, SymmetricTwoStep, TwoStep, stage_1
from warpwright.methods.prepare import Annotated, joined, lay_pair
from warpwright.methods.refine import Refinement, refined
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
    "Annotated",
    "Antisymmetric",
    "AnyFamily",
    "AnyNetwork",
    "AnySimilarity",
    "AtScale",
    "BSpline",
    "Direct",
    "Displacement",
    "Family",
    "Greedy",
    "Initialise",
    "Linear",
    "Losses",
    "Model",
    "ModelSettings",
    "Preset",
    "Progress",
    "Refinement",
    "Registration",
    "Settings",
    "SimilarityName",
    "Stage",
    "SymmetricTwoStep",
    "TransformName",
    "TwoStep",
    "Velocity",
    "batch_loss",
    "joined",
    "lay_pair",
    "needed",
    "predict_both",
    "preset",
    "refined",
    "register_direct",
    "register_pair",
    "stage_1",
]
