"""The real program in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "matplotlib", "SimpleITK", "nibabel", "scipy", "h5py")
RUN = "import sys; from warpwright.cli.main import main; code = main(); sys.stdout.flush(); "


def run(*arguments: str, then: str = "sys.exit(code)") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", RUN + then, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["register", "--help"], ["transform", "invert", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    done = run(*arguments, then=f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules]); sys.exit(code)")
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert done.stderr == ""


def test_import_of_the_package_loads_no_torch_and_names_are_there():
    code = "import sys, warpwright; assert 'torch' not in sys.modules; assert callable(warpwright.register);"
    code += "assert all(hasattr(warpwright, n) for n in warpwright.__all__); assert 'torch' in sys.modules;"
    code += "assert not hasattr(warpwright, 'nonsense')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["regster"], ["regster", "register"]),
        (["register", "a.nii"], ["requires an argument"]),
        (["register", "a.nii", "b.nii", "--output", "o", "--bogus"], ["--bogus"]),
        (["register", "a.nii", "b.nii", "--output", "o", "--transform", "elastic"], ["elastic", "greedy"]),
        (["register", "a.nii", "b.nii", "--output", "o", "--threads", "many"], ["many"]),
        (["apply", "t.h5", "--output", "o.nii"], ["exactly one of"]),
    ],
)
def test_wrong_command_lines_are_one_line_and_exit_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)


def test_a_missing_file_is_one_line_and_exit_2(tmp_path):
    done = run("register", str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz"), "--output", str(tmp_path / "o"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "a.nii.gz" in done.stderr
    assert list(tmp_path.iterdir()) == []
