"""Training steps of ours beside those of public PyTorch code: same network, loss, images, cores, run.

`python benchmarks/training_step.py --peer FOLDER`, where FOLDER holds the public packages for this interpreter:
`pip install --no-deps --target FOLDER voxelmorph==0.2 neurite==0.2 pystrum scikit-image lazy-loader imageio tifffile six tqdm
icon-registration==1.1.9 footsteps`. Each tool runs in a process of its own, in turn; the first step of a process is left out.
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
CASES = {  # the public tool, voxels along an axis, how many times quicker ours is to be
    "ncc": ("voxelmorph", 64, 1.5),
    "mse": ("voxelmorph", 64, 1.05),
    "gradicon": ("icon", 128, 1.3),
}


def measured(tool: str, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one process of a tool prints."""
    path = [] if tool == "ours" else [str(options.peer)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(options.threads)}
    numbers = [str(n) for n in (CASES[case][1], options.steps + 1, options.threads)]
    command = [sys.executable, str(PEERS / f"step_{tool}.py"), case, *numbers]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tool} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="folder of the public package (pip --target)")
    parser.add_argument("--only", choices=CASES, help="this case alone")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each tool")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sys.stdout.write(
        "| case | public, s | ours, s | ratio | reach | memory, public and ours, GB | weights |\n" + "|---" * 7 + "|\n"
    )
    for case, (peer, _, target) in CASES.items():
        if options.only not in (None, case):
            continue
        results: dict[str, list[dict[str, Any]]] = {peer: [], "ours": []}
        for _ in range(options.rounds):
            for tool, found in results.items():
                found.append(measured(tool, case, options))
        public, ours = (median(s for result in found for s in result["seconds"][1:]) for found in results.values())
        memory = " and ".join(f"{max(result['memory_gb'] for result in found):.2f}" for found in results.values())
        weights = " and ".join(f"{found[0]['parameters']:,}" for found in results.values())
        cells = (case, f"{public:.2f}", f"{ours:.2f}", f"{public / ours:.2f}", f">= {target}", memory, weights)
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
