"""How unlike two images are."""

from warpwright.energies.similarity.base import Pointwise, Similarity, reduce
from warpwright.energies.similarity.lncc import LNCC
from warpwright.energies.similarity.local_correlation import LocalCorrelation
from warpwright.energies.similarity.mind import MIND, descriptor
from warpwright.energies.similarity.mse import MSE
from warpwright.energies.similarity.mutual_information import MutualInformation
from warpwright.energies.similarity.weighted import Term, WeightedSum

AnySimilarity = LNCC | LocalCorrelation | MSE | MutualInformation | MIND | WeightedSum

__all__ = [
    "LNCC",
    "MIND",
    "MSE",
    "AnySimilarity",
    "LocalCorrelation",
    "MutualInformation",
    "Pointwise",
    "Similarity",
    "Term",
    "WeightedSum",
    "descriptor",
    "reduce",
]
