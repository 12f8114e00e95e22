"""Small models and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from methods_pairs import texture
from torch import nn

from warpwright.energies.losses import Images, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import MSE
from warpwright.methods import Model, ModelSettings
from warpwright.networks import VoxelMorph
from warpwright.transforms import Preparation

MEAN_SQUARES = (Images(similarity=MSE(), weight=10.0), Smoothness(on="velocity", weight=0.01))


def morph(dim: int, **settings: Any) -> Model:
    torch.manual_seed(1)
    known = {"network": VoxelMorph(form="vm1", scale=0.25), "loss": MEAN_SQUARES, "preparation": Preparation(start="none")}
    return Model(ModelSettings(dim=dim, **(known | settings)))


def batch_of(dim: int, dtype: torch.dtype = torch.float32) -> PairBatch:
    shape = (13, 10, 9)[:dim]
    fixed, moving = (torch.cat([texture(shape, seed=s, sigma=1.5)[None] for s in seeds]) for seeds in ((1, 2), (3, 4)))
    return PairBatch(fixed=fixed.to(dtype), moving=moving.to(dtype), spacing=(1.0, 0.8, 1.5)[:dim])


def lively(model: Model) -> Model:
    """With a head that moves voxels by about one."""
    for name, parameter in model.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.5)
    return model
