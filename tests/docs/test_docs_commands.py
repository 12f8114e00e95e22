"""Everything in the pages that can be run is run: commands, settings files, programs. What is not says why, right above it."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from docs_blocks import PAGES, ROOT, TOML_NAME, Block, blocks, commands, inline_commands, words
from docs_workspace import lay_model, second_stage, shrunk, write_files
from PIL import Image as Picture

from warpwright.cli.main import main
from warpwright.cohort.run import Engine, in_order
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.methods import Implicit
from warpwright.product.choice import Choice
from warpwright.product.learned import OfFeatures
from warpwright.training.config import read_training

EXTRA = re.compile(r'pip install "warpwright\[(\w+)\]"')
SAVED = re.compile(r'\.save\("(\w+)"\)')
PROMPT = ">>>"  # such examples are run by test_docs_examples.py


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_files(folder)
    return folder


def undrawn(*given: object, **_: object) -> None:
    """In the place of the drawing of figure.png, which is half of the time."""
    Picture.new("L", (80, 60)).save(str(given[1]))


def one_after_the_other(count: int) -> Engine:
    """In the place of worker processes, which have tests of their own."""
    assert count > 0
    return in_order


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, which is where commands are run; figure.png is drawn for `prepared` alone."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setattr("warpwright.product.result.draw", undrawn)
    monkeypatch.setattr("warpwright.cohort.engine.workers_on_this_machine", one_after_the_other)
    return tmp_path


def known_elsewhere(command: str) -> bool:
    """Whether the line is one that .ci/run runs, or installs an extra that there is."""
    extra = EXTRA.fullmatch(command)
    if extra:
        return extra[1] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return f"='{command}'" in (ROOT / ".ci" / "run").read_text()


def run(command: str, where: str) -> None:
    """Run a command of the program; an output that is there from before gives way."""
    program, *arguments = words(os.path.expandvars(command))
    assert program == "warpwright", f"{where}: is neither run nor marked with <!-- not run: reason -->: {command}"
    output = arguments[arguments.index("--output") + 1] if "--output" in arguments else None
    if output is not None and arguments[0] != "cohort":  # which goes on in the folder of an earlier run
        clear(output)
    assert main(arguments) == 0, f"{where}: {command}"
    if output is not None and "--dry-run" not in arguments:
        assert left(output), f"{where}: left nothing: {command}"


def left(output: str) -> list[Path]:
    """What lies at an output: a file, a folder, or the files of a prefix."""
    return list(Path().glob(f"{output}*" if output.endswith("_") else output))


def clear(output: str) -> None:
    """Remove what an earlier command of the page left: pages show alternatives, which write to the same place."""
    for old in left(output):
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def run_page(page: Path, workspace: Path) -> int:
    """Run a page from top to bottom; how much was run."""
    lay_model(page.name, workspace)
    names: dict[str, object] = {}
    count = 0
    for block in blocks(page.read_text()):
        where = f"{page.name}:{block.line}"
        if block.reason is not None:
            continue
        if block.shell:
            for command in commands(block.text):
                if not known_elsewhere(command):
                    run(command, where)
                    count += 1
        elif block.language == "toml" and (name := TOML_NAME.match(block.text)):
            Path(name[1]).write_text(shrunk(block.text))
            if name[1] == "stage_1.toml":
                Path("stage_2.toml").write_text(second_stage(Path(name[1]).read_text()))
        elif block.language == "python" and PROMPT not in block.text:
            for output in SAVED.findall(block.text):
                clear(output)
            exec(compile(block.text, where, "exec"), names)
            count += 1
    return count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_can_be_run(page: Path, workspace: Path) -> None:
    free = [block for block in blocks(page.read_text()) if block.reason is None]
    wanted = [block for block in free if block.shell or (block.language == "python" and PROMPT not in block.text)]
    assert (run_page(page, workspace) > 0) == bool(wanted)


def test_the_readme_trains_and_uses_a_model() -> None:
    shown = [command for block in blocks((ROOT / "README.md").read_text()) for command in commands(block.text)]
    (train,) = (command for command in shown if command.startswith("warpwright train"))
    output = words(train)[words(train).index("--output") + 1]
    assert any(f"--model {output}/model" in command for command in shown if command.startswith("warpwright register"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_of_a_page_are_known(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "toml":
            assert_settings(block, tmp_path / "settings.toml", f"{page.name}:{block.line}")


def assert_settings(block: Block, path: Path, where: str) -> None:
    """The tables are settings of a training, whose data or preset may stand in another block, or of a search of either kind."""
    data = "" if "[data]" in block.text else '\n[data]\nimages = "my_images"\n'
    reasons: list[str] = []
    training = [(f"{head}{block.text}{data}", read_training) for head in ("", 'preset = "gradicon"\n')]
    for text, read in (*training, (block.text, search_by_images), (block.text, search_by_features)):
        path.write_text(text)
        try:
            read(path)
        except BadInput as error:
            reasons.append(str(error))
        else:
            return
    pytest.fail(f"{where}: settings of nothing: {reasons}")


def search_by_images(path: Path) -> None:
    Choice(config=path).settings(Grid.regular((8, 8, 8), (1.0, 1.0, 1.0)))


def search_by_features(path: Path) -> None:
    choice, trained = Choice(config=path), Implicit()
    found, where = choice.read()
    choice.over(OfFeatures(deformable=trained.family, steps=trained.steps, tolerance=None), found, where)


def test_unknown_settings_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="radios"):
        assert_settings(Block("toml", "[matching]\nradios = 5", 1, None), tmp_path / "settings.toml", "page")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_between_backticks_are_known(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in inline_commands(page.read_text()):
        _, *arguments = command.split()
        path = arguments[
            : 2 if arguments[0] == "transform" or arguments[:2] in (["cohort", "status"], ["cohort", "retry"]) else 1
        ]
        assert main([*path, "--help"]) == 0, f"{page.name}: {command}"
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {word for word in arguments if word.startswith("--")} - {"--help"} <= known, f"{page.name}: {command}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("warpwright info fixed.nii.gz --colour", "--colour"),
        ("warpwright info nowhere.nii.gz", "nowhere"),
        ("ls", "neither run nor marked"),
    ],
)
def test_a_page_that_is_wrong_fails(text: str, sentence: str, workspace: Path) -> None:
    page = workspace / "wrong.md"
    page.write_text(f"# Wrong\n\n```bash\n{text}\n```\n")
    with pytest.raises(AssertionError, match=sentence):
        run_page(page, workspace)


def test_a_marked_block_is_left_out_and_has_a_reason(workspace: Path) -> None:
    page = workspace / "marked.md"
    page.write_text("<!-- not run: ANTs -->\n```bash\nSyN\n```\n\n```bash\nwarpwright info fixed.nii.gz\n```\n")
    assert [block.reason for block in blocks(page.read_text())] == ["ANTs", None]
    assert run_page(page, workspace) == 1


def test_what_is_marked_needs_something_from_outside() -> None:
    for page in PAGES:
        for block in blocks(page.read_text()):
            if block.reason is not None:
                others = [line for line in commands(block.text) if not line.startswith("warpwright ")]
                assert others or re.search(r"GPU|scheduler|torchrun|days", block.reason), f"{page.name}:{block.line}"
