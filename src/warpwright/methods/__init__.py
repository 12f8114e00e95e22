"""From two images to a map: where images, energies and the solver meet."""

from warpwright.methods.batch_loss import Losses, batch_loss, views
from warpwright.methods.deformable import AffineField, AnyFamily, BSpline, Displacement, Family, Greedy, Velocity
from warpwright.methods.direct import register_direct
from warpwright.methods.implicit import Implicit, Solving
from warpwright.methods.intensities import Intensities
from warpwright.methods.matching import Matching
from warpwright.methods.memory import needed
from warpwright.methods.model import Model, ModelSettings, predict_both
from warpwright.methods.multistep import Antisymmetric, AnyNetwork, AtScale, Direct, SymmetricTwoStep, TwoStep, layered, stage_1
from warpwright.methods.prepare import Annotated, joined, lay_image, lay_pair
from warpwright.methods.prompting import Prompting, Told
from warpwright.methods.pyramid import Compared, Pyramid
from warpwright.methods.refine import Refinement, refined
from warpwright.methods.register import register_pair
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.methods.search import Search, family_named
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
from warpwright.methods.solver_layer import Solved, SolverLayer, feature_levels
from warpwright.methods.step import evaluating, laid_out
from warpwright.methods.unrolled import Descent, Proximal

__all__ = [
    "AffineField",
    "Annotated",
    "Antisymmetric",
    "AnyFamily",
    "AnyNetwork",
    "AnySimilarity",
    "AtScale",
    "BSpline",
    "Compared",
    "Descent",
    "Direct",
    "Displacement",
    "Family",
    "Greedy",
    "Implicit",
    "Initialise",
    "Intensities",
    "Linear",
    "Losses",
    "Matching",
    "Model",
    "ModelSettings",
    "Preset",
    "Progress",
    "Prompting",
    "Proximal",
    "Pyramid",
    "Refinement",
    "Registration",
    "Search",
    "Settings",
    "SimilarityName",
    "Solved",
    "SolverLayer",
    "Solving",
    "Stage",
    "SymmetricTwoStep",
    "Told",
    "TransformName",
    "TwoStep",
    "Velocity",
    "batch_loss",
    "evaluating",
    "family_named",
    "feature_levels",
    "joined",
    "laid_out",
    "lay_image",
    "lay_pair",
    "layered",
    "needed",
    "predict_both",
    "preset",
    "refined",
    "register_direct",
    "register_pair",
    "stage_1",
    "views",
]
