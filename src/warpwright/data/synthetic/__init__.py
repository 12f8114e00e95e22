"""Pairs made by rule, whose truth is known.

Pure functions of settings and an explicit numpy generator, whose draws are the same on every platform. Arithmetic is in
float64 and rounded to float32 at the end, so that the bytes depend neither on threads nor on whether kernels are used.
"""

from warpwright.data.synthetic.bumps import BumpSettings, bump_displacement, bump_pair
from warpwright.data.synthetic.contrasts import ContrastSettings, contrast_pair, render_labels
from warpwright.data.synthetic.nuisance import Corrupted, NuisanceSettings, corrupt
from warpwright.data.synthetic.pair import SyntheticPair
from warpwright.data.synthetic.shapes import ShapeSettings, draw_shapes, shape_pair
from warpwright.data.synthetic.squares import SquareSettings, square_pair
from warpwright.data.synthetic.vessels import VesselSettings, vessel_pair

__all__ = [
    "BumpSettings",
    "ContrastSettings",
    "Corrupted",
    "NuisanceSettings",
    "ShapeSettings",
    "SquareSettings",
    "SyntheticPair",
    "VesselSettings",
    "bump_displacement",
    "bump_pair",
    "contrast_pair",
    "corrupt",
    "draw_shapes",
    "render_labels",
    "shape_pair",
    "square_pair",
    "vessel_pair",
]
