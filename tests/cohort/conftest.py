"""A cohort of small pairs that ran one after the other, and copies of it to change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_cohort import make_images, options, run

from warpwright.cohort.work import Work, read_work


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def serial(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of one pair after the other leaves; only looked at."""
    folder = tmp_path_factory.mktemp("serial") / "out"
    run(read_work(shared_images / "pairs.csv", options(shared_images)), folder)
    return folder


@pytest.fixture
def images(shared_images: Path, tmp_path: Path) -> Path:
    """The images in a folder that a test may change."""
    return Path(shutil.copytree(shared_images, tmp_path / "images"))


@pytest.fixture
def finished(images: Path, serial: Path, tmp_path: Path) -> Callable[[], tuple[Work, Path]]:
    """A finished cohort that a test may change; its images are copies of those it was run with."""

    def copied() -> tuple[Work, Path]:
        folder = Path(shutil.copytree(serial, tmp_path / "out"))
        return read_work(images / "pairs.csv", options(images)), folder

    return copied
