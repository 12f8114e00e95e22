"""How irregular a displacement is."""

from warpwright.energies.regularity.base import Regularity
from warpwright.energies.regularity.bending import Bending, bending
from warpwright.energies.regularity.diffusion import Diffusion, diffusion
from warpwright.energies.regularity.folding import Folding, folding
from warpwright.energies.regularity.total_variation import TotalVariation, total_variation

__all__ = [
    "Bending",
    "Diffusion",
    "Folding",
    "Regularity",
    "TotalVariation",
    "bending",
    "diffusion",
    "folding",
    "total_variation",
]
