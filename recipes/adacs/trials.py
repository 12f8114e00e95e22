"""What is compared: data, backbones and schemes, how each differs from the `.toml` of its data, and which runs a table has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKBONES", "DATA", "PARTS", "SCHEMES", "Trial", "changes"]

Table = dict[str, Any]

DATA = ("hearts", "hippocampus")
SEEDS = (0, 1, 2)
REST = 0.06  # share of the steps in which the model rests while the score learns alone, as AdaptiveScoring's warmup

SCORE: Table = {"kind": "adaptivescoring", "alpha": 0.02, "beta": 1.5, "warmup": REST, "rate": 1e-3, "scale": 0.5}
SCHEMES: dict[str, Table] = {  # the table `scheme.weighting`
    "vanilla": {},
    "nll": {"kind": "likelihood", "beta": 0.0, "rate": 1e-3},
    "beta-nll": {"kind": "likelihood", "beta": 0.5, "rate": 1e-3},
    "adaframe": {"kind": "adaframe"},
    "adareg": {"kind": "adareg"},
    "adacs": SCORE,
    "adacs-no-regulariser": {**SCORE, "alpha": 0.0},
    "adacs-no-tv": {**SCORE, "beta": 0.0},
}
PUBLISHED = ("vanilla", "nll", "beta-nll", "adaframe", "adareg", "adacs")
ABLATED = ("adacs-no-regulariser", "adacs-no-tv")
KEY = ("vanilla", "adacs")

ON_DISPLACEMENT: list[Table] = [
    {"kind": "images", "similarity": {"kind": "mse"}},
    {"kind": "smoothness", "on": "displacement", "weight": 0.02},
]
BACKBONES: dict[str, Table] = {  # changes of the table `model`
    "voxelmorph": {},
    "transmorph": {
        "network": {"kind": "transmorph", "size": "tiny"},
        "layers": [{"kind": "fullsize"}],
        "loss": ON_DISPLACEMENT,
    },
    "diffusemorph": {
        "network": {"kind": "diffusemorph", "inner": 16, "scale": 0.25},
        "layers": [],
        "directions": "forward",
        "loss": [{"kind": "noise", "weight": 0.05}, *ON_DISPLACEMENT],
    },
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training and its test.

    Args:
        data: of `DATA`.
        backbone: of `BACKBONES`.
        scheme: of `SCHEMES`.
        condition: whether images are corrupted or clean, in training and test alike.
        seed: of weights and batches; of hearts also which patient is left out.
    """

    data: str
    backbone: str = "voxelmorph"
    scheme: str = "vanilla"
    condition: str = "corrupted"
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.data}-{self.backbone}-{self.scheme}-{self.condition}-seed{self.seed}"


def schemes() -> Iterator[Trial]:
    """VoxelMorph: all schemes on corrupted images, the two key ones on clean images."""
    for seed in SEEDS:
        for data in DATA:
            yield from (Trial(data=data, scheme=scheme, seed=seed) for scheme in PUBLISHED)
            yield from (Trial(data=data, scheme=scheme, condition="clean", seed=seed) for scheme in KEY)


def backbones() -> Iterator[Trial]:
    """The key schemes with the other networks."""
    others = [name for name in BACKBONES if name != "voxelmorph"]
    for seed in SEEDS:
        for data in DATA:
            for backbone in others:
                yield from (Trial(data=data, backbone=backbone, scheme=scheme, seed=seed) for scheme in KEY)
                if seed == 0:
                    yield from (Trial(data=data, backbone=backbone, scheme=scheme, condition="clean") for scheme in KEY)


def ablation() -> Iterator[Trial]:
    """Without the term that keeps the score up, and without the one that smooths it."""
    for data in DATA:
        yield from (Trial(data=data, scheme=scheme) for scheme in ABLATED)


PARTS = {"schemes": schemes, "backbones": backbones, "ablation": ablation}


def changes(trial: Trial, steps: int) -> Table:
    """How the settings of a trial differ from the `.toml` of its data.

    Every scheme updates the model equally often: where it rests while a score learns alone, there are as many steps more.

    Args:
        trial: which one.
        steps: updates of the model.
    """
    weighting = SCHEMES[trial.scheme]
    found: Table = {"model": BACKBONES[trial.backbone], "seed": trial.seed, "steps": steps}
    if weighting:
        found["scheme"] = {"weighting": weighting}
    if "warmup" in weighting:
        found["steps"] = round(steps / (1 - REST))
    return found


def alike(trials: Sequence[Trial], **given: str) -> list[Trial]:
    """The trials that have these properties."""
    return [trial for trial in trials if all(getattr(trial, name) == value for name, value in given.items())]
