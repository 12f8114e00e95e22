"""How a model is trained: a scheme owns the optimisers and the step."""

from warpwright.schemes.adaptive_scoring import AdaptiveScoring
from warpwright.schemes.base import Scheme, SchemeSettings, Synchronise
from warpwright.schemes.likelihood import Likelihood
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
from warpwright.schemes.plain import AnyWeighting, Plain
from warpwright.schemes.reweighting import AdaFrame, AdaReg

__all__ = [
    "SGD",
    "AdaFrame",
    "AdaReg",
    "Adam",
    "AdamW",
    "AdaptiveScoring",
    "AnyOptimiser",
    "AnySchedule",
    "AnyWeighting",
    "Constant",
    "Cosine",
    "Likelihood",
    "Muon",
    "Plain",
    "Polynomial",
    "Scheme",
    "SchemeSettings",
    "Stepwise",
    "Synchronise",
]
