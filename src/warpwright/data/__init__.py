"""Image pairs: the small real ones that ship with the package, tables and folders of many, how they are read and varied."""

from warpwright.data.augment import Augmentation
from warpwright.data.bundled import Pair, bundled_pairs
from warpwright.data.cases import Cases, Loaded
from warpwright.data.fire import FireCategory, FirePair, FireSplit, read_fire
from warpwright.data.manifest import Case, CasePair, Cohort, Data, Pairing, Split, read_cohort

__all__ = [
    "Augmentation",
    "Case",
    "CasePair",
    "Cases",
    "Cohort",
    "Data",
    "FireCategory",
    "FirePair",
    "FireSplit",
    "Loaded",
    "Pair",
    "Pairing",
    "Split",
    "bundled_pairs",
    "read_cohort",
    "read_fire",
]
