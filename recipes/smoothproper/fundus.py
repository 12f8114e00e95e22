"""Networks that learn from fundus pairs: `python recipes/smoothproper/fundus.py SET --data FOLDER --output FOLDER`.

SET is `photograph` or `vessels`. Writes 140 pairs of 14 eyes and 6 of 2 more at a third of the resolution and trains every
`.toml` in `fundus/` on them; what was interrupted goes on. `far.py SET --models OUTPUT/SET` scores them beside the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from fundus_pairs import ROWS, write_fundus_pairs
from runs import settings_of, trained, write_table
from warpwright.errors import WarpwrightError

HERE = Path(__file__).parent / "fundus"
SIDES = {"train": 333, "validation": 333}  # pixels along the width


def main() -> int:
    """Write and train; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=("photograph", "vessels"))
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--output", type=Path, required=True, help="where images and models go")
    parser.add_argument("--only", help="train only this configuration (the name of its .toml)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    output = options.output / options.set
    try:
        rows = write_fundus_pairs(options.data / "retina_chase", output / "images", options.set, SIDES)
        write_table(output / "manifest.csv", [ROWS, *rows])
        configs = [c for c in sorted(HERE.glob("*.toml")) if options.only in (None, c.stem)]
        done = (trained(settings_of(config, output), output / config.stem, options.device) for config in configs)
        return 0 if all(done) else 1
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
