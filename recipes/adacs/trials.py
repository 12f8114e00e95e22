"""What is compared: data, networks and schemes, how each differs from the `.toml` of its data, and which runs a table has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CHOICES", "COLLAPSING", "DATA", "KEY", "NETWORKS", "ORACLE", "PARTS", "SCHEMES", "Trial", "alike", "changes"]

Table = dict[str, Any]

DATA = ("hearts", "hippocampus")
SEEDS = (0, 1, 2)
REST = 0.06  # share of the steps in which the model rests while the score learns alone, as AdaptiveScoring's warmup

SCORE: Table = {"kind": "adaptivescoring", "warmup": REST}
OF_DATA: dict[str, Table] = {  # as large as residuals are; narrow, as a score at full resolution is most of the cost
    "hearts": {"alpha": 0.05, "beta": 0.1, "scale": 0.5},
    "hippocampus": {"alpha": 0.15, "beta": 0.02, "factor": 10.0, "scale": 0.5},
}
VARIANCE: dict[str, Table] = {"hearts": {}, "hippocampus": {"scale": 0.5}}  # its network costs as much
SMOOTHNESS: dict[str, dict[str, float]] = {  # factor of its weight, see `choices`
    "hearts": {"smoother": 2.0, "nll": 16.0, "beta-nll": 4.0},  # smoother: a score below 1 weighs images down as a whole
    "hippocampus": {"smoother": 2.0, "nll": 16.0, "beta-nll": 16.0, "adareg": 16.0},
}
SCHEMES: dict[str, Table] = {  # the table `scheme.weighting`
    "vanilla": {},
    "nll": {"kind": "likelihood", "beta": 0.0},
    "beta-nll": {"kind": "likelihood", "beta": 0.5},
    "adaframe": {"kind": "adaframe"},
    "adareg": {"kind": "adareg"},
    "adacs": SCORE,
    "adacs-lower": {**SCORE, "alpha": 0.075},
    "smoother": {},
    "oracle": {},
    "adacs-no-regulariser": {**SCORE, "alpha": 0.0},
    "adacs-no-tv": {**SCORE, "beta": 0.0},
}
COMPARED = ("vanilla", "smoother", "nll", "beta-nll", "adaframe", "adareg", "adacs", "oracle")
LOWER = ("hippocampus", "adacs-lower")  # data and scheme: half the alpha, which `choices` found to be better there, if it works
ORACLE = "oracle"  # which is told where nuisances are
KEY = ("vanilla", "adacs")
COLLAPSING = ("adacs-no-regulariser", "adacs-lower")  # which is to be shown, so that it is a result of the trial
ABLATED = (*KEY, "adacs-no-regulariser", "adacs-no-tv")
SMOOTHED = ("vanilla", "nll", "beta-nll", "adareg", "adacs")  # all but the first weigh one of their terms
FACTORS = (1.0, 4.0, 16.0)
HIGHER = {"voxelmorph": 2.0, "diffusemorph": 4.0}  # factors of alpha that are looked at on clean images, too
VARIED = {"alpha": (0.5,), "beta": (5.0,), "warmup": (0.0, 4.0)}  # factors of the score's settings

NETWORKS: dict[str, Table] = {  # changes of the table `model`
    "voxelmorph": {},
    "transmorph": {"network": {"kind": "transmorph", "size": "tiny"}, "layers": [{"kind": "fullsize"}]},
    "diffusemorph": {"network": {"kind": "diffusemorph"}, "layers": [], "directions": "forward"},
}
QUARTER: Table = {"inner": 16, "scale": 0.25}  # widths of DiffuseMorph in 2-D; in 3-D those published are as small
NOISE: Table = {"kind": "noise", "weight": 0.05}  # as much less than images as published


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training and its test.

    Args:
        data: of `DATA`.
        network: of `NETWORKS`.
        scheme: of `SCHEMES`; "smoother" is "vanilla" with twice the weight on smoothness, "oracle" "vanilla" with masks that
            leave out what was planted in either image, which no score of the fixed image can know.
        condition: how strong nuisances are, in training and test alike.
        seed: of weights and batches; of hearts also which patient is left out.
        smoothness: factor of the weight of smoothness; None for that of `SMOOTHNESS`.
        score: settings of the score that are others than those of `OF_DATA`, by name.
    """

    data: str
    network: str = "voxelmorph"
    scheme: str = "vanilla"
    condition: str = "corrupted"
    seed: int = 0
    smoothness: float | None = None
    score: tuple[tuple[str, float], ...] = ()

    @property
    def factor(self) -> float:
        """Of the weight of smoothness."""
        return SMOOTHNESS[self.data].get(self.scheme, 1.0) if self.smoothness is None else self.smoothness

    @property
    def usual(self) -> bool:
        """Whether its test pairs are looked at, which those of trials that help to choose are not."""
        return self.name == replace(self, smoothness=None, score=()).name and self.condition != "half"

    @property
    def name(self) -> str:
        """Of its folder."""
        usual = replace(self, smoothness=None).factor
        more = [] if self.factor == usual else [f"smoothness{self.factor:g}"]
        more += [f"{name}{value:g}" for name, value in self.score]
        return "-".join((self.data, self.network, self.scheme, self.condition, f"seed{self.seed}", *more))


def schemes() -> Iterator[Trial]:
    """VoxelMorph: all schemes and two controls on corrupted images, the two key ones on clean images."""
    for seed in SEEDS:
        for data in DATA:
            yield from (Trial(data=data, scheme=scheme, seed=seed) for scheme in COMPARED)
            yield from (Trial(data=data, scheme=scheme, condition="clean", seed=seed) for scheme in KEY)
        yield Trial(data=LOWER[0], scheme=LOWER[1], seed=seed)


def networks() -> Iterator[Trial]:
    """The key schemes with the other networks."""
    others = [name for name in NETWORKS if name != "voxelmorph"]
    for seed in SEEDS:
        for data in DATA:
            for network in others:
                yield from (Trial(data=data, network=network, scheme=scheme, seed=seed) for scheme in KEY)
                if seed == 0:
                    yield from (Trial(data=data, network=network, scheme=scheme, condition="clean") for scheme in KEY)


def ablation() -> Iterator[Trial]:
    """Beside the key schemes that without the term that keeps the score up, and that without the one that smooths it."""
    for data in DATA:
        yield from (Trial(data=data, scheme=scheme) for scheme in ABLATED)


def choices() -> Iterator[Trial]:
    """What decides: seed 0 on validation images, with other weights of smoothness, other scores, weaker nuisances.

    Of hearts these are of the two patients whose ends of the beat seeds 1 and 2 are scored on: only the first fold is unseen by
    what is chosen here.
    """
    for data in DATA:
        for scheme in SMOOTHED:
            yield from (Trial(data=data, scheme=scheme, smoothness=factor) for factor in FACTORS)
        for condition in ("half", "clean"):
            yield from (Trial(data=data, scheme=scheme, condition=condition) for scheme in KEY)
        usual = {"warmup": REST, **OF_DATA[data]}
        for name, factors in VARIED.items():
            yield from (Trial(data=data, scheme="adacs", score=((name, factor * usual[name]),)) for factor in factors)
        for network, factor in HIGHER.items():
            higher = (("alpha", factor * usual["alpha"]),)
            for condition in ("corrupted", "clean"):
                yield Trial(data=data, network=network, scheme="adacs", condition=condition, score=higher)


CHOICES = "choices"
PARTS = {"schemes": schemes, "networks": networks, "ablation": ablation, CHOICES: choices}


def changes(trial: Trial, base: Table) -> Table:
    """How the settings of a trial differ from the `.toml` of its data.

    Every scheme updates the model equally often: where it rests while a score learns alone, there are as many steps more.
    Networks that give a displacement are to have a smooth one, with the weight that VoxelMorph's velocity has.

    Args:
        trial: which one.
        base: what the `.toml` says.
    """
    weighting, model = SCHEMES[trial.scheme], dict(NETWORKS[trial.network])
    images, smoothness = base["model"]["loss"]
    if trial.network != "voxelmorph":
        smoothness = {**smoothness, "on": "displacement"}
    smoothness = {**smoothness, "weight": trial.factor * smoothness["weight"]}
    model["loss"] = [images, smoothness]
    if trial.network == "diffusemorph":
        model["loss"] = [NOISE, *model["loss"]]
        model["network"] = model["network"] | (QUARTER if trial.data == "hearts" else {})
    found: Table = {"model": model, "seed": trial.seed}
    kind = weighting.get("kind")
    if kind == "adaptivescoring":
        weighting = OF_DATA[trial.data] | weighting | dict(trial.score)
        found["steps"] = round(base["steps"] / (1 - weighting["warmup"]))
    if kind == "likelihood":
        weighting = VARIANCE[trial.data] | weighting
    if kind:
        found["scheme"] = {"weighting": weighting}
    return found


def alike(trials: Sequence[Trial], **given: str) -> list[Trial]:
    """The trials that have these properties."""
    return [trial for trial in trials if all(getattr(trial, name) == value for name, value in given.items())]
