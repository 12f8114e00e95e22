"""Fenced blocks of a page, and what stands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\S*)\s*$")
REASON = re.compile(r"<!-- not run: (\S.*) -->")
TOML_NAME = re.compile(r"# ([\w-]+\.toml)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its fence, and why it is not run, if it says so right above."""

    language: str
    text: str
    line: int
    reason: str | None

    @property
    def shell(self) -> bool:
        """Whether it holds commands, whether or not it says so."""
        return self.language == "bash" or any(line.startswith("warpwright ") for line in self.text.splitlines())


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    found: list[Block] = []
    lines = text.splitlines()
    start = None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if start is None and fence:
            start, language = number, fence[1]
        elif start is not None and line.strip() == "```":
            above = REASON.fullmatch(lines[start - 1]) if start else None
            inside = "\n".join(lines[start + 1 : number])
            found.append(Block(language, inside, start + 1, above and above[1]))
            start = None
    assert start is None, f"the fence of line {start} is not closed"
    return found


def commands(text: str) -> list[str]:
    """The commands of a block of bash: lines that end in a backslash joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for line in joined if line.strip() and not line.startswith("#")]


def words(command: str) -> list[str]:
    """A command as the shell splits it: its comment left out, patterns in the place of which files are."""
    found = [(word, sorted(map(str, Path().glob(word))) if "*" in word else []) for word in shlex.split(command, comments=True)]
    return [name for word, files in found for name in files or [word]]


def inline_commands(text: str) -> list[str]:
    """Commands of the program between single backticks, outside of fenced blocks."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.findall(r"`(warpwright [^`]+)`", outside.replace("\n", " "))
