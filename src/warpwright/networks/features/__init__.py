"""Networks that look at one image and give features of it at several scales, for fixed and moving images alike."""

from warpwright.networks.features.base import FeatureArchitecture, FeatureExtractor, FeaturePyramid
from warpwright.networks.features.lku import FeatureLKU, FeatureLKUEncoder
from warpwright.networks.features.unet import FeatureUNet, FeatureUNetEncoder

__all__ = [
    "FeatureArchitecture",
    "FeatureExtractor",
    "FeatureLKU",
    "FeatureLKUEncoder",
    "FeaturePyramid",
    "FeatureUNet",
    "FeatureUNetEncoder",
]
