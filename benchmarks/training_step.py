"""One training step of our VoxelMorph beside one of the public PyTorch code: same network, loss, volume, cores, run.

`python benchmarks/training_step.py --peer FOLDER`, where FOLDER holds voxelmorph 0.2 for this interpreter:
`pip install --no-deps --target FOLDER voxelmorph==0.2 neurite==0.2 pystrum scikit-image lazy-loader imageio tifffile six tqdm`.
Each tool runs in a process of its own, in turn; the first step of a process is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

PEERS = Path(__file__).parent / "peers"
TARGETS = {"ncc": 1.5, "mse": 1.05}


def measured(tool: str, similarity: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one process of a tool prints."""
    path = [str(options.peer)] if tool == "voxelmorph" else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(options.threads)}
    numbers = [str(n) for n in (options.size, options.steps + 1, options.threads)]
    command = [sys.executable, str(PEERS / f"step_{tool}.py"), similarity, *numbers]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tool} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="folder of the public package (pip --target)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each tool")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sys.stdout.write("| loss | public, s | ours, s | ratio | reach | weights |\n|---|---|---|---|---|---|\n")
    for similarity, target in TARGETS.items():
        seconds: dict[str, list[float]] = {"voxelmorph": [], "ours": []}
        weights = {}
        for _ in range(options.rounds):
            for tool, found in seconds.items():
                result = measured(tool, similarity, options)
                found.extend(result["seconds"][1:])
                weights[tool] = result["parameters"]
        public, ours = median(seconds["voxelmorph"]), median(seconds["ours"])
        same = f"{weights['ours']:,} and {weights['voxelmorph']:,}"
        sys.stdout.write(f"| {similarity} | {public:.2f} | {ours:.2f} | {public / ours:.2f} | >= {target} | {same} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
