"""Image pairs: the small real ones that ship with the package."""

from warpwright.data.bundled import Pair, bundled_pairs

__all__ = ["Pair", "bundled_pairs"]
