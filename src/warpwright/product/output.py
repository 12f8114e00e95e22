"""Folders and JSON that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from warpwright.errors import BadInput, Failed

__all__ = ["check_file", "check_folder", "plain", "whole_folder", "write_json"]


def check_folder(folder: str | Path, *, force: bool) -> Path:
    """The output folder, which can be written and is empty or absent (or `force`).

    Raises:
        BadInput: it is a file, holds files and `force` is off, or cannot be written.
    """
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"{folder}: is a file, expected a folder for the output")
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise BadInput(f"{folder}: the output folder is not empty; choose another, or replace its results with --force")
    except OSError as error:
        raise BadInput(f"{folder}: the output folder cannot be used ({error.strerror})") from None
    _try_writing(folder if folder.is_dir() else folder.parent, folder)
    return folder


def check_file(path: str | Path, *, force: bool) -> Path:
    """An output file that does not exist yet (or `force`), in a folder that exists and can be written.

    Raises:
        BadInput: as said.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not force:
        raise BadInput(f"{path}: exists; choose another name, or replace it with --force")
    if not path.parent.is_dir():
        raise BadInput(f"{path}: cannot be written, the folder {path.parent} does not exist")
    _try_writing(path.parent, path)
    return path


def _try_writing(folder: Path, wanted: Path) -> None:
    """Make and remove a temporary folder in the nearest folder that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".warpwright-", dir=folder):
            pass
    except OSError as error:
        raise BadInput(f"{wanted}: cannot be written ({error.strerror}), expected a place that can") from None


@contextmanager
def whole_folder(folder: str | Path, *, force: bool = False, exchanged: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the block ends well and is removed when it does not.

    Other files in a folder that is replaced with `force` stay as they are.

    Args:
        folder: what it will be called.
        force: replace what is there.
        exchanged: names of all files that may belong together: the folder changes as a whole, so that new ones are never seen
            beside old ones.

    Raises:
        BadInput: see `check_folder`.
        Failed: writing failed on the way (a full disk).
    """
    folder = check_folder(folder, force=force)
    made: list[Path] = []
    try:
        for parent in reversed(folder.parents):
            if not parent.exists():
                with suppress(FileExistsError):  # another process was faster
                    parent.mkdir()
                    made.append(parent)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield work
            work.chmod(0o755)
            if not folder.exists():
                work.rename(folder)
            elif exchanged:
                _exchange(work, folder, exchanged)
            else:
                _move(work, folder)
        except Failed as error:  # of a writer, which knows the temporary folder only
            raise Failed(str(error).replace(str(work), str(folder))) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:
        for parent in reversed(made):
            with suppress(OSError):  # another process has put something there
                parent.rmdir()
        if isinstance(error, OSError):
            raise Failed(f"{folder}: the results could not be written ({error.strerror or error})") from error
        raise


def _move(work: Path, folder: Path) -> None:
    """Put new files into a folder, over those of the same names."""
    for path in sorted(work.iterdir()):
        os.replace(path, folder / path.name)


def _exchange(work: Path, folder: Path, together: Collection[str]) -> None:
    """Put a folder in the place of another, whose files are taken along but for those that belong together."""
    for other in sorted(folder.iterdir()):
        if other.name not in together:
            (shutil.copytree if other.is_dir() else shutil.copy2)(other, work / other.name)
    old = work.with_name(f"{work.name}-old")
    folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping, indented, whole or not at all; NaN and infinities become null.

    Bytes of a path that are no UTF-8 are written as the escapes of JSON, from which they read back.

    Raises:
        BadInput: the folder does not exist or cannot be written.
        Failed: the file could not be written.
    """
    from warpwright.io.atomic import replacing  # brings torch along, which `--help` must not

    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def plain(value: Any) -> Any:
    """The same with mappings, lists and scalars that JSON knows."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
