"""Seconds and size of `warpwright report`: `python benchmarks/report.py`; needs no data.

A made volume of 160 x 192 x 224 voxels and itself under bumps, with labels, is registered once (preset fast), then reported
so many times, and once with the viewer of volumes. Seconds are those of the whole command.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from process import measured, program
from warpwright.data.synthetic import BumpSettings, ContrastSettings, bump_pair, render_labels
from warpwright.data.synthetic.fields import random_field
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

SHAPE = (160, 192, 224)
LEVELS = (0.0, 0.8, 1.6)  # of a smooth field of deviation 1, above which a label begins
PARTS = ("fixed", "moving", "fixed_labels", "moving_labels")


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pair(folder)
        files = {part: str(folder / f"{part}.nii.gz") for part in PARTS}
        labels = ["--fixed-labels", files["fixed_labels"], "--moving-labels", files["moving_labels"]]
        result = str(folder / "result")
        register = [program(), "register", files["fixed"], files["moving"], *labels, "--preset", "fast", "--output", result]
        subprocess.run(register, check=True, stdout=subprocess.DEVNULL)
        command, page = [program(), "report", result, "--force"], folder / "result" / "report.html"
        seconds = [measured(command, called="warpwright report")["seconds"] for _ in range(options.repeats)]
        size = page.stat().st_size / 1e6
        longer = measured([*command, "--interactive"], called="warpwright report --interactive")["seconds"]
        larger = page.stat().st_size / 1e6
    sys.stdout.write(f"report of {SHAPE}: median {median(seconds):.2f} s of {options.repeats}")
    sys.stdout.write(
        f" ({min(seconds):.2f} to {max(seconds):.2f}), {size:.2f} MB; interactive {longer:.2f} s, {larger:.2f} MB\n"
    )
    return 0


def write_pair(folder: Path) -> None:
    """Images and labels of the pair."""
    rng, grid = np.random.default_rng(0), Grid.regular(SHAPE)
    field = random_field(1, SHAPE, 24.0, 1.0, rng)[0]
    labels = sum(((field > level).to(torch.uint8) for level in LEVELS), torch.zeros(1, *SHAPE, dtype=torch.uint8))
    pair = bump_pair(render_labels(labels, ContrastSettings(noise=0.05), rng), BumpSettings(), rng, labels)
    for part in PARTS:
        write_image(folder / f"{part}.nii.gz", Image(getattr(pair, part), grid))


if __name__ == "__main__":
    sys.exit(main())
