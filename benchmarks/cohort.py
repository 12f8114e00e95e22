"""Many pairs: one worker against two and against plain `register`, checks of ten thousand rows, memory of the scheduler.

python benchmarks/cohort.py --data DATA [--pairs 200] [--rows scheduler,pairs,rows] [--output FILE.md] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from warpwright.cohort import engine
from warpwright.cohort.provenance import write_record
from warpwright.cohort.run import RESULTS, execute, in_order, make_plan
from warpwright.cohort.work import Options, options_digest, read_work
from warpwright.config import to_mapping
from warpwright.errors import BadInput, WarpwrightError

ROWS = 10_000
HANDED = 2_000
SAME = ("transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz")
CHILD = """
import json, sys, time
from pathlib import Path
import warpwright
rows, output, preset = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def work(pair, folder):
    warpwright.register(*pair, preset=preset, threads=1).save(folder, force=True, figure=False)
work(rows[0], output / "first")
begin = time.perf_counter()
for number, pair in enumerate(rows):
    work(pair, output / str(number))
print(time.perf_counter() - begin)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit code as of `warpwright`."""
    parser = argparse.ArgumentParser(prog="benchmarks/cohort.py", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(), help="for pairs: folder of the data sets (benchmarks/README.md)")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of hippocampi, at least 3")
    parser.add_argument("--preset", choices=("fast", "balanced", "accurate"), default="balanced", help="of every registration")
    parser.add_argument("--rows", default="scheduler,pairs,rows", help="which measurements, of scheduler,pairs,rows")
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--json", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    try:
        found: dict[str, Any] = {}
        if "scheduler" in options.rows.split(","):
            found |= scheduler_measured()
        with tempfile.TemporaryDirectory(prefix="warpwright-benchmark-") as folder:
            if "pairs" in options.rows.split(","):
                found |= pairs_measured(options.data, options.pairs, options.preset, Path(folder))
            if "rows" in options.rows.split(","):
                found |= rows_measured(Path(folder))
    except WarpwrightError as error:
        sys.stderr.write(f"benchmarks/cohort.py: {error}\n")
        return error.exit_code
    text = "".join(f"| {name.replace('_', ' ')} | {shown(value)} |\n" for name, value in found.items())
    table = f"| measured | value |\n|---|---|\n{text}"
    print(table, end="")
    if options.output is not None:
        options.output.write_text(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def shown(value: Any) -> str:
    """A figure as the table has it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def pairs_measured(data: Path, count: int, preset: str, folder: Path) -> dict[str, Any]:
    """Seconds of the whole command with one worker and with two, and of `register` for the same pairs in one process.

    `register` does half of the pairs before the cohorts and half after, as a machine is not equally fast all the time.
    Without start: from the first pair's record (of n workers, so many pairs are then begun) to the last one's. The overhead
    compares one worker with `register`, both with all outputs and no figures, one thread; the start of either is what
    its process takes before a warm one would begin: imports, compiled loops that are loaded, a pair that is slower.
    """
    images = sorted((data / "hippocampus_msd" / "images").glob("*.nii.gz"))
    if count < 3:
        raise BadInput(f"--pairs must be at least 3, got {count}")
    if len(images) < 2:
        raise BadInput(f"{data / 'hippocampus_msd' / 'images'}: holds no images, expected hippocampi")
    pairs = [(str(images[k % len(images)]), str(images[(k + 1) % len(images)])) for k in range(count)]
    table = folder / "pairs.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "fixed", "moving"), *((f"pair{k:04}", *pair) for k, pair in enumerate(pairs))])
    plain, start = _registered(pairs[: count // 2], folder / "plain", preset)
    whole: dict[int, float] = {}
    between: dict[int, float] = {}
    for workers in (1, 2):
        whole[workers], between[workers] = _cohort(table, folder / f"workers{workers}", workers, preset)
    plain += _registered(pairs[count // 2 :], folder / "plain", preset)[0]
    files = [f"pair{k:04}/{name}" for k in range(count) for name in SAME] + ["results.csv"]
    same = all((folder / "workers1" / f).read_bytes() == (folder / "workers2" / f).read_bytes() for f in files)
    rerun, _ = _cohort(table, folder / "workers2", 2, preset)
    return {
        "pairs": count,
        "preset": preset,
        "register_seconds_a_pair": plain / count,
        "one_worker_seconds": whole[1],
        "two_workers_seconds": whole[2],
        "speed-up": whole[1] / whole[2],
        "speed-up_without_start": between[1] / (count - 1) / (between[2] / (count - 2)),
        "register_start_seconds": start,
        "overhead_percent": 100 * (whole[1] / (plain + start - plain / count) - 1),
        "overhead_without_start_percent": 100 * (between[1] / (count - 1) / (plain / count) - 1),
        "same_bytes": same,
        "rerun_seconds": rerun,
    }


def _registered(pairs: Sequence[tuple[str, str]], output: Path, preset: str) -> tuple[float, float]:
    """Seconds of `register` for all the pairs, in one process that is warm, and those that it took until then."""
    command = [sys.executable, "-c", CHILD, json.dumps(pairs), str(output), preset]
    begin = time.perf_counter()
    seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, time.perf_counter() - begin - seconds


def _cohort(table: Path, output: Path, workers: int, preset: str) -> tuple[float, float]:
    """Seconds of the command, and from the first pair's record to the last one's."""
    arguments = ["cohort", str(table), "--output", str(output), "--workers", str(workers), "--preset", preset, "--no-figures"]
    command = [sys.executable, "-c", "import sys; from warpwright.cli.main import main; sys.exit(main())", *arguments]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInput(f"cohort: ended with {done.returncode} ({done.stderr.strip()[-200:]}), expected that every pair is done")
    times = sorted(path.stat().st_mtime for path in output.glob("*/provenance.json"))
    return time.perf_counter() - begin, times[-1] - times[0]


def scheduler_measured() -> dict[str, Any]:
    """Memory of the process that hands out pairs and holds the scheduler, after 10, 50 and 100 % of pairs that do nothing."""
    process, real = psutil.Process(), engine.run_pair
    found: dict[str, Any] = {"scheduler_pairs": HANDED}
    files = {column: f"/some/where/in/a/long/folder/of/a/study/{column}.nii.gz" for column in ("fixed", "moving")}
    tasks = ({"id": f"pair{k:06}", "files": files, "options": to_mapping(Options())} for k in range(HANDED))
    engine.run_pair = nothing
    try:
        begin = time.perf_counter()
        for count, _ in enumerate(engine.workers_on_this_machine(2)(tasks), 1):
            if count in (HANDED // 10, HANDED // 2, HANDED):
                gc.collect()
                found[f"scheduler_mb_at_{100 * count // HANDED}_percent"] = process.memory_info().rss / 1e6
        found["scheduler_ms_a_pair"] = 1000 * (time.perf_counter() - begin) / HANDED
    finally:
        engine.run_pair = real
    return found


def nothing(task: Mapping[str, Any]) -> dict[str, Any]:
    """In the place of `run_pair`."""
    return {"id": task["id"], "state": "done"}


def rows_measured(folder: Path) -> dict[str, Any]:
    """Seconds to check a table of ten thousand pairs of files, and to find and tell that all of them are done."""
    image = next(Path(__file__).resolve().parents[1].glob("src/warpwright/data/pairs/hippocampus/image_*.nii.gz"))
    inputs, output = folder / "images", folder / "done"
    inputs.mkdir()
    for k in range(2 * ROWS):
        shutil.copyfile(image, inputs / f"{k}.nii.gz")
    table = folder / "rows.csv"
    lines = [f"pair{k},images/{2 * k}.nii.gz,images/{2 * k + 1}.nii.gz" for k in range(ROWS)]
    table.write_text("\n".join(["id,fixed,moving", *lines]) + "\n")
    begin = time.perf_counter()
    work = read_work(table, Options(figures=False))
    plan = make_plan(work, output)
    check = time.perf_counter() - begin
    execute(plan, lambda _: (record for record in ()), lambda *_: None)
    _pretend(plan.work.pairs, output, options_digest(work.options))
    begin = time.perf_counter()
    plan = make_plan(read_work(table, Options(figures=False)), output)
    planned = time.perf_counter() - begin
    if plan.todo:
        raise BadInput(f"{output}: {len(plan.todo)} rows are not done, expected none")
    execute(plan, in_order, lambda *_: None)
    return {
        "rows": ROWS,
        "check_seconds": check,
        "rerun_plan_seconds": planned,
        "rerun_seconds_in_process": time.perf_counter() - begin,
        "page_mb": (output / "index.html").stat().st_size / 1e6,
        "memory_gb": psutil.Process().memory_info().rss / 1e9,
    }


def _pretend(pairs: Sequence[Any], output: Path, digest: str) -> None:
    """Records and results of pairs as if they had been run; the results are of one byte."""
    from warpwright.cohort.provenance import described

    figures = {"improved": True, "energy_before": 0.8, "energy_after": 0.3, "folded_percent": 0.0, "min_determinant": 0.1}
    for pair in pairs:
        folder = output / pair.id
        folder.mkdir()
        for name in RESULTS:
            (folder / name).write_bytes(b"1")
        record = {"id": pair.id, "state": "done", "sentence": None, "warnings": [], "figures": figures, "seconds": 1.0}
        record |= {"version": "0", "options": digest, "outputs": dict.fromkeys(RESULTS, 1)}
        write_record(folder, record | {"inputs": {column: described(path) for column, path in pair.files.items()}})


if __name__ == "__main__":
    sys.exit(main())
