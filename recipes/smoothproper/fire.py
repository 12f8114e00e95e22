"""The FIRE protocol with one's own copy of FIRE: `python recipes/smoothproper/fire.py --data FIRE --output FOLDER`.

FIRE is the public folder with `Images` and `Ground Truth` in it; it is not part of this repository, and nothing was measured
on it here. Every pair is `warpwright register --photograph fundus --initialise matching`, with `--models` also by each
network in that folder. Prints the table of the protocol with the row of the identity, for the test split of the literature
or all pairs; `errors.json` in the output folder holds every error, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import warpwright
from warpwright.data import FirePair, read_fire
from warpwright.errors import WarpwrightError
from warpwright.evaluation.fire import PairErrors, table
from warpwright.io import read_image

Errors = dict[str, dict[str, list[float]]]
IDENTITY = "identity"


def main() -> int:
    """Register every pair in every way; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of FIRE")
    parser.add_argument("--output", type=Path, required=True, help="where errors go")
    parser.add_argument("--split", choices=("all", "test"), default="test")
    parser.add_argument("--models", type=Path, help="folder of trained networks, NAME/model each")
    parser.add_argument("--preset", choices=("fast", "balanced", "accurate"), default="balanced")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        pairs = read_fire(options.data, options.split)
        models = {} if options.models is None else {m.parent.name: m for m in sorted(options.models.glob("*/model"))}
        found = errors(pairs, {"matching": None, **models}, options)
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    rows = {
        way: [PairErrors(name=p.name, category=p.category, errors=each[p.name]) for p in pairs] for way, each in found.items()
    }
    sys.stdout.write(f"{table(rows.pop(IDENTITY), rows)}\n")
    return 0


def errors(pairs: tuple[FirePair, ...], ways: dict[str, Path | None], options: argparse.Namespace) -> Errors:
    """Errors of the control points of every pair, pixels of the full image, by way and pair."""
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "errors.json"
    found: Errors = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for number, pair in enumerate(pairs, 1):
        found.setdefault(IDENTITY, {})[pair.name] = (pair.fixed_points - pair.moving_points).norm(dim=1).tolist()
        for way, model in ways.items():
            if pair.name not in found.setdefault(way, {}):
                found[way][pair.name] = registered(pair, model, options.preset, options.threads)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(f"{pair.name}, {number} of {len(pairs)}\n")
    return found


def registered(pair: FirePair, model: Path | None, preset: str, threads: int) -> list[float]:
    """Errors of one pair."""
    how = {"initialise": "matching"} if model is None else {"model": model}
    result = warpwright.register(pair.fixed, pair.moving, photograph="fundus", preset=preset, threads=threads, **how)
    fixed, moving = (read_image(path).grid for path in (pair.fixed, pair.moving))
    mapped = moving.to_voxel(result.transform(fixed.to_world(pair.fixed_points)))
    return torch.as_tensor(mapped - pair.moving_points).norm(dim=1).tolist()


if __name__ == "__main__":
    sys.exit(main())
