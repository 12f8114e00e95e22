"""Reading images between voxels: sampling and its adjoint, warping, filters, pyramids."""

from warpwright.sampling.directional import warp_directional
from warpwright.sampling.filters import box_sum, gaussian, gaussian_sum, gaussian_zero_padded
from warpwright.sampling.fundus import enhance_fundus, equalise, field_of_view, green_channel, luminance
from warpwright.sampling.intensity import AnyNormalisation, Percentiles, Window
from warpwright.sampling.pyramid import downsample, on_lattice, resize_displacement
from warpwright.sampling.sample import Outside, inside, sample, splat
from warpwright.sampling.voxels import sample_labels, sample_nearest
from warpwright.sampling.warp import warp, warp_covered, warp_labels, warp_nearest, warp_within

__all__ = [
    "AnyNormalisation",
    "Outside",
    "Percentiles",
    "Window",
    "box_sum",
    "downsample",
    "enhance_fundus",
    "equalise",
    "field_of_view",
    "gaussian",
    "gaussian_sum",
    "gaussian_zero_padded",
    "green_channel",
    "inside",
    "luminance",
    "on_lattice",
    "resize_displacement",
    "sample",
    "sample_labels",
    "sample_nearest",
    "splat",
    "warp",
    "warp_covered",
    "warp_directional",
    "warp_labels",
    "warp_nearest",
    "warp_within",
]
