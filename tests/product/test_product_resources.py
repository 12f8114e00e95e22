from __future__ import annotations

import os

import pytest
import torch

from warpwright.errors import Failed
from warpwright.product import resources


def test_more_threads_than_processors_are_cut_and_told():
    count, notes = resources.granted_threads(100_000)
    assert 1 <= count <= (os.cpu_count() or 1)
    assert notes == (f"100000 threads were asked for, this process may use {count} processors: {count} threads are used",)
    assert resources.granted_threads(1) == (1, ())
    assert resources.granted_threads(None) == (torch.get_num_threads(), ())


def test_threads_are_given_back():
    import SimpleITK as sitk  # noqa: N813

    before, itk = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with resources.threads(3):
        assert torch.get_num_threads() == 3
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
        assert os.environ[resources.ITK] == "3"
    assert torch.get_num_threads() == before
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == itk
    assert resources.ITK not in os.environ


def test_too_little_memory_is_one_sentence():
    resources.check_memory(1)
    with pytest.raises(Failed, match=r"needs about 1000000.0 GB of memory, \d+\.\d GB are free: expected"):
        resources.check_memory(10**15)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    for name, value in (("LIMIT", "3000000"), ("USED", "1000000"), ("CACHED", "anon 5\ninactive_file 250000\n")):
        path = tmp_path / name
        path.write_text(value)
        monkeypatch.setattr(resources, name, path)
    assert resources.available_memory() == 2_250_000
    (tmp_path / "LIMIT").write_text("max\n")
    assert resources.available_memory() > 2_250_000
