"""The real program in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "matplotlib", "SimpleITK", "nibabel", "scipy", "h5py")
RUN = "import sys; from warpwright.cli.main import main; code = main(); sys.stdout.flush(); "


def run(*arguments: str, then: str = "sys.exit(code)") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", RUN + then, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["register", "--help"], ["transform", "invert", "--help"], ["cohort", "--help"], ["--version"]]
)
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


def test_a_reader_that_stops_is_no_traceback(tmp_path):
    from warpwright.io import write_transform
    from warpwright.transforms import Affine

    write_transform(tmp_path / "t.tfm", Affine.identity(3))
    command = [sys.executable, "-W", "error", "-c", RUN + "sys.exit(code)", "info", str(tmp_path / "t.tfm")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()  # long before the first line comes
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_an_error_of_the_system_is_one_line(tmp_path):
    full = f"open({str(tmp_path / 'none' / 'x')!r})"
    setting = f"import warpwright.product.info as m; m.describe = lambda *a, **k: {full}; "
    command = [sys.executable, "-W", "error", "-c", setting + RUN + "sys.exit(code)", "info", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"warpwright: {tmp_path / 'none' / 'x'}: No such file or directory\n"


@pytest.mark.parametrize("name", ["o.h5", "o.nii.gz", "--ants"])
def test_a_full_disk_is_one_line_and_leaves_nothing(name, tmp_path):
    resource = pytest.importorskip("resource")
    import torch

    from warpwright.geometry import Grid
    from warpwright.io import write_transform
    from warpwright.transforms import Affine, DisplacementField

    noise = torch.randn(3, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    write_transform(tmp_path / "t.h5", Affine.identity(3) @ DisplacementField(noise, Grid.regular((20, 20, 20))))
    (tmp_path / "o").mkdir()
    target = (
        ["--ants", "--output", str(tmp_path / "o" / "p_")] if name == "--ants" else ["--output", str(tmp_path / "o" / name)]
    )
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, {resource.RLIM_INFINITY})); "
    arguments = ["transform", "convert", str(tmp_path / "t.h5"), *target]
    command = [sys.executable, "-c", limit + RUN + "sys.exit(code)", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "could not be written" in done.stderr
    assert list((tmp_path / "o").iterdir()) == []
