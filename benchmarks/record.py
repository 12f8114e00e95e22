"""What a benchmark leaves: lines of a table, the machine they were measured on, a JSON file that grows row by row."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from warpwright.errors import BadInput
from warpwright.product.output import plain

__all__ = ["HEADINGS", "Journal", "Line", "as_markdown", "fact_lines", "machine_facts", "same_run", "table_lines"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("warpwright", "torch", "numpy", "scipy", "numba", "nibabel", "SimpleITK", "h5py")
HEADINGS = ("work", "public tools, 2 cores", "target", "reached", "met", "seconds")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table.

    Args:
        row: name of the row it belongs to.
        work: what was done.
        others: what public tools reach.
        target: what should be reached.
        reached: what was.
        met: whether that is enough.
        seconds: wall time of the line, metrics included.
        details: everything else, for the JSON file.
    """

    row: str
    work: str
    others: str
    target: str
    reached: str
    met: bool
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        """The texts under `HEADINGS`."""
        return self.work, self.others, self.target, self.reached, "yes" if self.met else "no", f"{self.seconds:.1f}"


def machine_facts(*, preset: str, threads: int, seed: int) -> dict[str, Any]:
    """What figures depend on, beside the work itself."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "commit": _git("rev-parse", "--short=12", "HEAD") or "none",
        "changed_files": len(_git("status", "--porcelain", "--", "src", "benchmarks").splitlines()),
        "code": _digest(),
        "preset": preset,
        "threads": threads,
        "seed": seed,
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether rows of both headers may stand in one table: same code, settings, processor, versions and other tools."""
    keys = ("commit", "code", "preset", "threads", "seed", "cpu", "tools", "judged", "rounds")
    return all(one.get(k) == other.get(k) for k in keys) and one["versions"] == other.get("versions")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _digest() -> str:
    """Of every source file that a figure depends on, committed or not."""
    sha = hashlib.sha256()
    for path in sorted(p for folder in ("src", "benchmarks") for p in (ROOT / folder).rglob("*.py")):
        sha.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def _cpu() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Journal:
    """The rows that are finished: in memory, and in the files that were asked for, whole after every row.

    Args:
        header: what the figures depend on.
        table: Markdown file.
        data: JSON file.
        render: the text of the Markdown file; default `as_markdown`.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        *,
        table: Path | None,
        data: Path | None,
        render: Callable[[Mapping[str, Any], Sequence[Line]], str] | None = None,
    ) -> None:
        self.render = render or as_markdown
        self.header = dict(header)
        self.lines: list[Line] = []
        self.table = table
        self.data = data

    def resume(self) -> str:
        """Take over the rows of an earlier run of the same code on the same machine.

        Returns:
            A sentence that tells what was taken over.

        Raises:
            BadInput: the JSON file was not written by a benchmark.
        """
        if self.data is None or not self.data.is_file():
            return "nothing to resume"
        try:
            earlier = json.loads(self.data.read_text(encoding="utf-8"))
            lines = [Line(**line) for line in earlier["lines"]]
            header = earlier["machine"]
            alike = same_run(header, self.header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.data}: is not the JSON of a benchmark ({error}), expected one to resume from") from None
        if not alike:
            return "the earlier rows are of other code, settings or another machine and are measured again"
        self.lines = [line for line in lines if "failed" not in line.details]
        return f"taken over: {', '.join(dict.fromkeys(line.row for line in self.lines)) or 'nothing'}"

    def finished(self, row: str) -> bool:
        """Whether a row has its lines."""
        return any(line.row == row for line in self.lines)

    def add(self, lines: Sequence[Line]) -> None:
        """A row is finished: keep its lines and rewrite the files."""
        self.lines.extend(lines)
        if self.data is not None:
            content = plain({"machine": self.header, "lines": [asdict(line) for line in self.lines]})
            _replace(self.data, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        if self.table is not None:
            _replace(self.table, self.render(self.header, self.lines))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def as_markdown(header: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """The facts and the table."""
    return "\n".join([*fact_lines(header), "", *table_lines(HEADINGS, [line.cells() for line in lines]), ""])


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    every = [headings, ("---",) * len(headings), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in every]


def fact_lines(header: Mapping[str, Any]) -> list[str]:
    """The header as a list a person reads."""
    versions = ", ".join(f"{name} {number}" for name, number in header["versions"].items())
    changed = f" with {header['changed_files']} changed files" if header["changed_files"] else ""
    return [
        f"- machine: {header['cpu']}, {header['cores']} cores, {header['system']}, load {header['load']} at the start",
        f"- run: {header['date']}, preset {header['preset']}, {header['threads']} threads, seed {header['seed']}",
        f"- code: commit {header['commit']}{changed} (sources {header['code']})",
        f"- versions: {versions}",
    ]
