"""Networks that look at two images and estimate how they differ. Torch only; they never warp.

An `Architecture` is a frozen description; `build` makes the `Estimator`, which returns a typed `Estimate`.
"""

from warpwright.networks.affine_net import AffineNet
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.correlation import Correlation, Matcher
from warpwright.networks.diffusemorph import DiffuseMorph
from warpwright.networks.dirnet import DIRNet
from warpwright.networks.encoder import Encoder, EncoderNetwork
from warpwright.networks.estimate import (
    Basis,
    BasisLogits,
    ControlPoints,
    Displacement,
    Estimate,
    FieldKind,
    LinearMap,
    Velocity,
    VelocityDistribution,
    field,
)
from warpwright.networks.fcn_ss import FCNSS
from warpwright.networks.layers import save_memory
from warpwright.networks.lku_net import LKUNet
from warpwright.networks.tall_unet import TallUNet
from warpwright.networks.transmorph import TransMorph
from warpwright.networks.voxelmorph import VoxelMorph, VoxelMorphDiff

AnyArchitecture = (
    AffineNet | Correlation | DiffuseMorph | DIRNet | FCNSS | LKUNet | TallUNet | TransMorph | VoxelMorph | VoxelMorphDiff
)

__all__ = [
    "FCNSS",
    "AffineNet",
    "AnyArchitecture",
    "Architecture",
    "Basis",
    "BasisLogits",
    "ControlPoints",
    "Correlation",
    "DIRNet",
    "DiffuseMorph",
    "Displacement",
    "Encoder",
    "EncoderNetwork",
    "Estimate",
    "Estimator",
    "FieldKind",
    "LKUNet",
    "LinearMap",
    "Matcher",
    "TallUNet",
    "TransMorph",
    "Velocity",
    "VelocityDistribution",
    "VoxelMorph",
    "VoxelMorphDiff",
    "field",
    "save_memory",
]
