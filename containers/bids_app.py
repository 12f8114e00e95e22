"""Warpwright with the arguments of a BIDS App: `bids_app.py BIDS_DIR OUTPUT_DIR participant [--participant-label 01 02] ...`.

What it is given becomes one `warpwright cohort`, which it prints and runs; what it does not know itself, and stands behind the
rest, is passed on to that (`--transform greedy`, `--report`). Its exit code is that of the command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version

from warpwright.cli.main import main as warpwright


def command(arguments: Sequence[str]) -> list[str]:
    """The arguments of `warpwright` that those of a BIDS App stand for."""
    parser = argparse.ArgumentParser(prog="bids_app.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("bids_dir", help="the data set")
    parser.add_argument("output_dir", help="where the derivatives go")
    parser.add_argument("analysis_level", choices=["participant"], help="the only one there is")
    parser.add_argument("--participant-label", "--participant_label", nargs="+", default=[], metavar="LABEL")
    parser.add_argument("--session-label", "--session_label", nargs="+", default=[], metavar="LABEL")
    parser.add_argument("--suffix", default="T1w", help="which images: T1w (default), T2w, FLAIR")
    parser.add_argument("--fixed", help="atlas that all images are moved to; without it, later sessions are moved to the first")
    parser.add_argument("--n-cpus", "--n_cpus", type=int, metavar="N", help="processes; as many as there are by default")
    parser.add_argument("--skip-bids-validation", "--skip_bids_validation", action="store_true", help="none is done here")
    parser.add_argument("--version", action="version", version=version("warpwright"))
    given, rest = parser.parse_known_args(arguments)
    chosen = [f"suffix={given.suffix}"]
    for key, labels in (("sub", given.participant_label), ("ses", given.session_label)):
        bare = [label.removeprefix(f"{key}-") for label in labels]
        chosen += [f"{key}={'|'.join(bare)}"] if bare else []
    pairs = ["--fixed", given.fixed] if given.fixed else ["--sessions"]
    workers = [] if given.n_cpus is None else ["--workers", str(given.n_cpus)]
    return ["cohort", given.bids_dir, "--output", given.output_dir, "--bids", ",".join(chosen), *pairs, *workers, *rest]


def main() -> int:
    """Run; the exit code."""
    asked = command(sys.argv[1:])
    sys.stderr.write(f"{shlex.join(['warpwright', *asked])}\n")
    return warpwright(asked)


if __name__ == "__main__":
    sys.exit(main())
