"""Warpwright on images in memory, compiled loops warm."""

from pathlib import Path

import torch
from base import Base

from warpwright.data.bundled import bundled_pairs
from warpwright.io import write_transform
from warpwright.methods import register_pair
from warpwright.product.choice import Choice
from warpwright.product.plan import prepare as plan


class Tool(Base):
    """As `Base` says."""

    package = "warpwright"
    settings = "the shipped preset, nothing else; in memory after one small registration of a bundled pair, so compiled"

    def prepare(self):
        """One small registration, so that all loops are compiled."""
        torch.set_num_threads(self.threads)
        small = next(pair for pair in bundled_pairs() if "hippocampus" in pair.name)
        self.register(self.load(small.fixed, small.moving), None)

    def load(self, fixed, moving):
        """Both images and the settings."""
        return plan(fixed, moving, choice=Choice(preset=self.preset), threads=self.threads, device="cpu")

    def register(self, images, folder):
        """The map and its inverse."""
        return register_pair(images.fixed, images.moving, images.settings)

    def save(self, result, images, folder):
        """The map alone, to be scored."""
        write_transform(Path(folder) / "transform.h5", result.forward)
