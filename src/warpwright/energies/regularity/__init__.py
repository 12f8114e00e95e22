"""How irregular a displacement is."""

from warpwright.energies.regularity.base import Regularity, in_millimetres, mean_square
from warpwright.energies.regularity.bending import Bending, bending
from warpwright.energies.regularity.diffusion import Diffusion, diffusion
from warpwright.energies.regularity.folding import Folding, folding
from warpwright.energies.regularity.total_variation import TotalVariation, total_variation

AnyRegularity = Diffusion | TotalVariation | Bending | Folding

__all__ = [
    "AnyRegularity",
    "Bending",
    "Diffusion",
    "Folding",
    "Regularity",
    "TotalVariation",
    "bending",
    "diffusion",
    "folding",
    "in_millimetres",
    "mean_square",
    "total_variation",
]
