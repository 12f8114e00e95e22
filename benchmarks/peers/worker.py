"""Register pairs with one tool and note what it took: a program of its own, for the interpreter in which the tool lives.

    python worker.py TOOL JOB.json REPORT.json      register the pairs of the job
    python worker.py TOOL REPORT.json               only tell the version of the tool

It needs nothing but the standard library; `run_TOOL.py` beside it drives the tool. Seconds are those from images in memory to
the field, without reading and writing; whoever started this process measures all of it.
"""

import importlib
import json
import os
import resource
import sys
import time
from importlib.metadata import version


def main(arguments):
    """Do the job and write the report."""
    kind = importlib.import_module(f"run_{arguments[0]}").Tool
    report = {"version": version(kind.package), "settings": kind.settings, "pairs": []}
    if len(arguments) == 3:
        with open(arguments[1], encoding="utf-8") as file:
            job = json.load(file)
        tool = kind(job["threads"], job["preset"])
        tool.prepare()
        report["peak_gb_ready"] = peak()
        report["pairs"] += [registered(tool, **pair) for pair in job["pairs"]]
    with open(arguments[-1], "w", encoding="utf-8") as file:
        json.dump(report, file)


def registered(tool, fixed, moving, folder):
    """One pair: read, registered, saved."""
    os.makedirs(folder, exist_ok=True)
    images = tool.load(fixed, moving)
    begin, cpu = time.perf_counter(), time.process_time()
    result = tool.register(images, folder)
    taken = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    tool.save(result, images, folder)
    return taken


def peak():
    """Largest resident size so far, GB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main(sys.argv[1:])
