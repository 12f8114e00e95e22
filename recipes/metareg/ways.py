"""What is compared: how each way differs from `base.toml`, and which runs each table is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["PARTS", "SEEDED", "WAYS", "Run", "changes", "pairs_of", "tested"]

Table = dict[str, Any]

LEARNED_UP: Table = {"upsampling": "transposed"}
SWEPT = (0.005, 0.02, 0.08, 0.3)  # weights of the smoothness term
SEEDS = (0, 1, 2)
RATE, QUICKER = 2e-3, (6e-3, 18e-3)  # of Muon: that of all tables but `rates`, and those beside it there
HALF, FULL = 128, 256  # voxels along either axis of an image; the paper's are as large as the latter


def smoothed(**settings: Any) -> Table:
    """The network of the paper and a kernel."""
    return {"network": LEARNED_UP, "layers": [{"kind": "kernelsmoothing", **settings}, {"kind": "fullsize"}]}


def printed(symmetry: float, positivity: float, **settings: Any) -> Table:
    """Equation 12 with rho1 and rho2."""
    penalty = {"group": "eq12", "by": "linear", "symmetry": symmetry, "positivity": positivity, "rank": 0.0}
    return smoothed(form="free", taps=25, penalty=penalty, **settings)


UNHELD: Table = {"symmetry": 0.0, "positivity": 0.0, "rank": 0.0}

WAYS: dict[str, Table] = {  # changes of the table `model`
    "voxelmorph2": {},
    "ablated": {"network": LEARNED_UP},
    "metareg": smoothed(form="separable", taps=25),
    "unheld": smoothed(form="separable", taps=25, penalty=UNHELD),
    "voxelmorph1": {"network": {"form": "vm1"}},
    "dirnet": {"network": {"kind": "dirnet"}, "layers": [{"kind": "splinefield"}, {"kind": "fullsize"}]},
    "fcnss": {"network": {"kind": "fcnss"}},
    "unheld_7": smoothed(form="separable", taps=7, penalty=UNHELD),  # the paper's 13 taps on images of half its size
    "unheld_13": smoothed(form="separable", taps=13, penalty=UNHELD),
    "unheld_37": smoothed(form="separable", taps=37, penalty=UNHELD),
    "held_37": smoothed(form="separable", taps=37),
    "loosely_held": smoothed(form="separable", taps=25, penalty={"positivity": 0.1}),
    "autocorrelation": smoothed(form="autocorrelation", taps=25),
    "gaussian": smoothed(form="gaussian", taps=25, shared=True, penalty=UNHELD),
    "unnormalised": smoothed(form="separable", taps=25, normalised=False),
    "free": smoothed(form="free", taps=25),
    "free_unheld": smoothed(form="free", taps=25, penalty=UNHELD),
    "free_delta": smoothed(form="free", taps=25, start="delta"),
    "uut": smoothed(form="uut", taps=25, penalty={"group": "eq12"}),
    "metareg_49": smoothed(form="separable", taps=49),  # reaches as far on 256 x 256 voxels
}
WAYS |= {f"eq12_{one:g}_{two:g}": printed(one, two) for one in (0.1, 1.0, 10.0) for two in (1e-5, 1e-3, 1e-1)}
WAYS["eq12_unnormalised"] = printed(1.0, 1e-3, normalised=False)


def pairs_of(energy: str, side: int) -> str:
    """What the table of so large images under such deformations is called."""
    return energy if side == HALF else f"{energy}-{side}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        way: of `WAYS`.
        energy: of the pairs that are learned from.
        weight: of the smoothness term; None for the best of the sweep, by validation Dice.
        seed: of weights and batches.
        side: voxels along either axis.
        rate: of learning.
    """

    way: str
    energy: str = "large"
    weight: float | None = None
    seed: int = 0
    side: int = HALF
    rate: float = RATE

    @property
    def pairs(self) -> str:
        """The pairs that are learned from; of `pairs_of`."""
        return pairs_of(self.energy, self.side)

    @property
    def name(self) -> str:
        """Of its folder; the weight must be known."""
        rate = "" if self.rate == RATE else f"-rate{self.rate:g}"
        return f"{self.way}-{self.pairs}-{self.weight:g}{rate}-seed{self.seed}"

    @property
    def title(self) -> str:
        """What a table calls it."""
        return self.way if self.rate == RATE else f"{self.way}, rate {self.rate:g}"


SEEDED = ("voxelmorph2", "ablated", "metareg", "unheld")
BASELINES = ("voxelmorph1", "dirnet", "fcnss")
GRID = tuple(name for name in WAYS if name.startswith("eq12"))
AT_FULL_SIZE = ("voxelmorph2", "ablated", "metareg_49")
FORMS = tuple(name for name in WAYS if name not in SEEDED + BASELINES + GRID + AT_FULL_SIZE)


def sweep() -> Iterator[Run]:
    """Weights of the smoothness term."""
    yield from (Run(way=way, weight=weight) for weight in SWEPT for way in SEEDED + BASELINES)


def four() -> Iterator[Run]:
    """Both energies, the key ways and that without penalties with three seeds."""
    for energy in ("large", "moderate"):
        yield from (Run(way=way, energy=energy, seed=seed) for seed in SEEDS for way in SEEDED)
        yield from (Run(way=way, energy=energy) for way in BASELINES)


def forms() -> Iterator[Run]:
    """Forms of the kernel, beside the networks without one; they have the weight of `metareg`."""
    yield from (Run(way=way) for way in (*SEEDED, *FORMS))


def grid() -> Iterator[Run]:
    """Equation 12 as printed, beside the networks without a kernel."""
    yield from (Run(way=way) for way in (*SEEDED, *GRID))


def rates() -> Iterator[Run]:
    """Rates of learning, the middle one with three seeds."""
    ways = ("voxelmorph2", "ablated", "metareg")
    yield from (Run(way=way, rate=rate) for rate in (RATE, *QUICKER) for way in ways)
    yield from (Run(way=way, rate=QUICKER[0], seed=seed) for seed in SEEDS[1:] for way in ways)


def full() -> Iterator[Run]:
    """The key ways on images of the paper's size, large deformations."""
    yield from (Run(way=way, side=FULL) for way in AT_FULL_SIZE)


PARTS = {"sweep": sweep, "four": four, "rates": rates, "forms": forms, "grid": grid, "full": full}


def tested(side: int) -> tuple[str, ...]:
    """Energies of the test pairs of so large images."""
    return ("moderate", "large") if side == HALF else ("large",)


def tuned_like(way: str) -> str:
    """The way whose best weight a way takes."""
    return way if way in SEEDED + BASELINES else "metareg"


def changes(run: Run) -> Table:
    """How the settings of a run differ from `base.toml`, but for the loss."""
    model = WAYS[run.way] | {"preparation": {"shape": [run.side, run.side]}}
    return {"model": model, "scheme": {"optimiser": {"rate": run.rate}}, "seed": run.seed}


def at(run: Run, weight: float) -> Run:
    """The run with a weight, where it had none."""
    return run if run.weight is not None else replace(run, weight=weight)
