"""How a model is trained: a scheme owns the optimisers and the step."""

from warpwright.schemes.base import Scheme, SchemeSettings, Synchronise
from warpwright.schemes.optimisers import (
    SGD,
    Adam,
    AdamW,
    AnyOptimiser,
    AnySchedule,
    Constant,
    Cosine,
    Muon,
    Polynomial,
    Stepwise,
)
from warpwright.schemes.plain import Plain

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AnyOptimiser",
    "AnySchedule",
    "Constant",
    "Cosine",
    "Muon",
    "Plain",
    "Polynomial",
    "Scheme",
    "SchemeSettings",
    "Stepwise",
    "Synchronise",
]
