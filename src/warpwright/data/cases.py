"""The files of a case as tensors, kept in memory as far as a bound allows, and all checked before a training begins."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

from torch import Tensor

from warpwright.data.manifest import Case, Data
from warpwright.errors import BadInput, first_of
from warpwright.geometry import Grid, Image
from warpwright.io import Points, check_on_grid, read_image, read_labels, read_mask, read_points, require_structure
from warpwright.sampling import inside

__all__ = ["Cases", "Loaded"]

T = TypeVar("T")
Key: TypeAlias = tuple[Path | None, ...]  # the files of a case: rows that share them share the memory too
Failure: TypeAlias = tuple[Path, str, str]  # a file that cannot be used, the kind of failure, the sentence that says so


@dataclass(frozen=True, eq=False, kw_only=True)
class Loaded:
    """An image and what is known about it.

    Args:
        image: (C, *S) float32, intensities as in the file.
        mask: (1, *S) float32 weights on the same grid.
        labels: (1, *S) whole numbers on the same grid.
        points: (N, D) float64 world points, RAS+ mm.
        point_names: one for each point.
    """

    image: Image
    mask: Image | None = None
    labels: Image | None = None
    points: Tensor | None = None
    point_names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        tensors = (self.image.data, *(part.data for part in (self.mask, self.labels) if part is not None), self.points)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Cases:
    """Reads cases, and keeps those asked for last, `cache_gb` of them. Threads may share it.

    Args:
        data: frame of the points, header to take, and size of the memory.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._limit = int(data.cache_gb * 1e9)
        self._kept: OrderedDict[Key, Loaded] = OrderedDict()  # the one asked for last is last
        self._size = 0
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes of the tensors that are kept."""
        return self._size

    def load(self, case: Case) -> Loaded:
        """The files of a case; not to be changed, as the next caller gets the same tensors.

        Raises:
            BadInput: a file is missing or cannot be read, holds NaN or no structure, or lies elsewhere than its image; one
                sentence for all that is wrong with the case.
        """
        loaded, failures = self._found(case)
        if loaded is None:
            raise BadInput("; ".join(sentence for *_, sentence in failures))
        return loaded

    def check(self, cases: Sequence[Case], stop: Callable[[], bool] | None = None) -> tuple[int, int] | None:
        """Read every file once, and keep what there is room for.

        Args:
            cases: at least one.
            stop: asked before each case whether to leave it at that.

        Returns:
            Number of axes and of channels, which all images share; None if not all were read.

        Raises:
            BadInput: some cases cannot be read, or images differ in axes or channels: one sentence for all.
        """
        failures: list[Failure] = []
        kinds: dict[tuple[int, int], str] = {}
        for case in {_key(case): case for case in cases}.values():
            if stop is not None and stop():
                return None
            loaded, wrong = self._found(case)
            failures.extend(wrong)
            if loaded is not None:
                kinds.setdefault((loaded.image.grid.dim, loaded.image.channels), loaded.image.name)
        sentences = _gathered(failures)
        if len(kinds) > 1:
            found = first_of(f"{dim} axes and {channels} channels ({name})" for (dim, channels), name in kinds.items())
            sentences.insert(0, f"images differ: {found}, expected as many axes and channels in all")
        if sentences:
            raise BadInput("; ".join(sentences))
        return next(iter(kinds))

    def _found(self, case: Case) -> tuple[Loaded | None, list[Failure]]:
        """A case from memory or from its files, or everything that is wrong with them."""
        key = _key(case)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key], []
        loaded, failures = _read(case, self._data)  # unlocked: others go on, and two that ask for one case both read it
        if loaded is not None:
            self._keep(key, loaded)
        return loaded, failures

    def _keep(self, key: Key, loaded: Loaded) -> None:
        with self._lock:
            if loaded.size > self._limit or key in self._kept:
                return
            self._kept[key] = loaded
            self._size += loaded.size
            while self._size > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._size -= oldest.size


def _key(case: Case) -> Key:
    return case.image, case.mask, case.labels, case.points


def _gathered(failures: Sequence[Failure]) -> list[str]:
    """A sentence for each kind of failure: that of the first file, and the other files by name."""
    kinds: dict[str, dict[Path, str]] = {}
    for path, kind, sentence in failures:
        kinds.setdefault(kind, {})[path] = sentence
    told: list[str] = []
    for files in kinds.values():
        first, *others = files
        told.append(f"{files[first]} (likewise {', '.join(map(str, others))})" if others else files[first])
    return told


def _read(case: Case, data: Data) -> tuple[Loaded | None, list[Failure]]:
    """All files of a case, or everything that is wrong with them."""
    failures: list[Failure] = []

    def attempt(path: Path | None, read: Callable[[Path], T]) -> T | None:
        if path is None:
            return None
        try:
            return read(path)
        except BadInput as error:
            failures.append((path, _kind(str(error), path, case.image), str(error)))
            return None

    image = attempt(case.image, lambda path: _structured(read_image(path, header=data.header)))
    mask = attempt(case.mask, lambda path: _on(image, read_mask(path, header=data.header)))
    labels = attempt(case.labels, lambda path: _on(image, read_labels(path, header=data.header)))
    placed = case.points if image is not None or data.space != "voxel" else None  # voxels of an image that was not read
    points = attempt(placed, lambda path: _points(path, data, None if image is None else image.grid))
    if image is None or failures:
        return None, failures
    return _loaded(image, mask, labels, points), failures


def _kind(sentence: str, *paths: Path) -> str:
    """A sentence without the files that it names, and without numbers."""
    for path in paths:
        sentence = sentence.replace(str(path), "").replace(path.name, "")
    return re.sub(r"\d[\d.e+-]*", "", sentence)


def _loaded(image: Image, mask: Image | None, labels: Image | None, points: Points | None) -> Loaded:
    world, names = (None, ()) if points is None else (points.world, points.names)
    return Loaded(image=image, mask=mask, labels=labels, points=world, point_names=names)


def _structured(image: Image) -> Image:
    require_structure(image)
    return image


def _on(image: Image | None, other: Image) -> Image:
    """A mask or label map that lies on its image, if that could be read."""
    if image is not None:
        check_on_grid(other, image.grid, image.name)
    return other


def _points(path: Path, data: Data, grid: Grid | None) -> Points:
    """Landmarks, some of which at least lie in the image, if that could be read."""
    points = read_points(path, data.space, grid)
    if grid is not None and not bool(inside(grid.to_voxel(points.world).T[None], grid.shape).any()):
        raise BadInput(f"{path}: all {len(points.world)} points lie outside their image, expected them inside (right space?)")
    return points
