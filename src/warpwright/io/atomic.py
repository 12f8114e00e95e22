"""Files that are either whole or absent: written beside their place under another name, then moved into it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from warpwright.errors import BadInput, Failed

__all__ = ["last_line", "replacing", "replacing_all", "write_csv"]


def last_line(error: BaseException) -> str:
    """The end of a library's message, where it says what happened, cut to a clause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ").rstrip(".")[-160:] if lines else type(error).__name__


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name to write to; what was written there takes the place of `path` when the block ends without an error.

    The name lies in the folder of `path` and has the same suffixes, because writers choose the format by them. After an
    error nothing is left behind and an older `path` is untouched.

    Raises:
        BadInput: the folder does not exist or cannot be written, or `path` is a folder.
        Failed: the block or the move ran into the operating system (a full disk, say), or a library could not write.
    """
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise BadInput(f"{path}: cannot be written, the folder {folder} does not exist")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, the name of a file to write was expected")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{path}: cannot be written, the folder {folder} is read-only")
    temporary = folder / f".{uuid4().hex[:12]}{''.join(path.suffixes)}"
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise Failed(f"{path}: could not be written ({error.strerror or error})") from error
    except RuntimeError as error:  # how ITK and HDF5 report theirs
        raise Failed(f"{path}: could not be written ({last_line(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """As `replacing`, for files that belong together: all appear, or none does.

    Raises:
        BadInput: as `replacing`.
        Failed: as `replacing`; the sentence of a writer that failed names the file and not its temporary name.
    """
    with ExitStack() as stack:
        names = tuple(stack.enter_context(replacing(path)) for path in paths)
        try:
            yield names
        except Failed as error:
            sentence = str(error)
            for name, path in zip(names, paths, strict=True):
                sentence = sentence.replace(str(name), str(path))
            raise Failed(sentence) from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table in UTF-8, whole or not at all; what cannot be written in it becomes a question mark.

    Raises:
        BadInput, Failed: as `replacing`.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
