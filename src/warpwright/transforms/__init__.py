"""Maps of points to points: affine, displacement, velocity, B-spline; compose, invert, exp, log."""

from warpwright.transforms.bspline import bspline_displacement, control_shape, fit_bspline
from warpwright.transforms.displacement import compose, inverse_residual, invert
from warpwright.transforms.preimage import carried_points
from warpwright.transforms.preparation import Preparation, centring, laid, working_grid
from warpwright.transforms.resample import Interpolation, resample
from warpwright.transforms.transform import (
    Affine,
    BSplineField,
    Composite,
    DisplacementField,
    Transform,
    VelocityField,
    displacement_on,
    expanded,
    residual_of,
    split,
    worked_on,
)
from warpwright.transforms.velocity import exp, log

__all__ = [
    "Affine",
    "BSplineField",
    "Composite",
    "DisplacementField",
    "Interpolation",
    "Preparation",
    "Transform",
    "VelocityField",
    "bspline_displacement",
    "carried_points",
    "centring",
    "compose",
    "control_shape",
    "displacement_on",
    "exp",
    "expanded",
    "fit_bspline",
    "inverse_residual",
    "invert",
    "laid",
    "log",
    "resample",
    "residual_of",
    "split",
    "worked_on",
    "working_grid",
]
