"""Train and score a recipe: `python recipes/run.py NAME --data FOLDER --output FOLDER`, NAME being a folder beside this file.

Writes the manifest, trains what is not trained yet (a run that was interrupted is resumed), registers the test pairs in every
way, prints the table and draws it (`results.png` in the output folder); `results.json` there holds every number of the tables
that were printed last. A row that is scored is kept in `rows` there, so that none is scored twice by the same model. Of
models of features a second table says what their time goes into. With several seeds every configuration has a row for each,
and one of the mean over them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from cohorts import COHORTS, Cohort, TestPair
from drawing import draw
from runs import folder_of, settings_of, trained, write_table
from scoring import Row, Way, by_features, by_model, classical, header, line, mean_of, nothing, score, times_header, times_line
from warpwright.config import to_mapping
from warpwright.errors import BadInput, WarpwrightError, did_you_mean
from warpwright.io.atomic import replacing
from warpwright.methods import Intensities, Solving, TransformName
from warpwright.product.model_folder import ModelFolder, read_model

HERE = Path(__file__).parent
NONE = "none"  # of the configurations
KINDS = [kind for kind in get_args(TransformName) if kind != "rigid"]  # that features are made to search
RECIPES = sorted(
    {config.parent.relative_to(HERE).as_posix() for config in HERE.rglob("*.toml") if config.parent.name in COHORTS}
)
Seeds = dict[int, ModelFolder]  # models of one configuration


@dataclass(frozen=True)
class Test:
    """Pairs that are registered in many ways, and where rows are kept.

    Args:
        title: of the table.
        pairs: in the order of every row.
        folder: of the rows.
    """

    title: str
    pairs: Sequence[TestPair]
    folder: Path

    def row(self, name: str, way: Way, swapped: bool = True, *, of: str = "") -> Row:
        """A row of the table, scored if it is not there.

        Args:
            name: of the row.
            way: what registers.
            swapped: also register with the images swapped.
            of: what the model is; a row of another, or of another machine, is scored anew.
        """
        file = self.folder / f"{hashlib.sha256(f'{self.title}/{name}'.encode()).hexdigest()[:16]}.json"
        key = {"table": self.title, "way": name, "of": of, "pairs": [pair.name for pair in self.pairs], "machine": machine()}
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if {k: kept.get(k) for k in key} == key:
                return Row(**kept["row"])
        sys.stderr.write(f"{self.title}: {name}\n")
        row = score(name, way, self.pairs, swapped=swapped)
        self.folder.mkdir(exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps({**key, "row": row.to_mapping()}) + "\n", encoding="utf-8")
        return row


@dataclass(frozen=True)
class Asked:
    """In which ways models register beside their own.

    Args:
        refine: steps of refinement of a model for a pair, 0 for none.
        transforms: what models of features also give, in the first table.
        intensities: how images count beside their features, in every table; None for no such row.
    """

    refine: int = 0
    transforms: tuple[TransformName, ...] = ()
    intensities: Intensities | None = None


def main() -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--output", type=Path, required=True, help="where models and results go")
    parser.add_argument("--only", nargs="+", metavar="STEM", help=f"train and score only these configurations, or {NONE!r}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings, each configuration for each")
    parser.add_argument("--refine", type=int, default=20, help="steps of refinement of a model for a pair, 0 for none")
    parser.add_argument("--transforms", nargs="*", default=[], choices=KINDS, help="of models of features, in the first table")
    parser.add_argument("--intensities", type=float, help="weight of the images beside the features of models, a row more")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=FOLDER", help="model folders that are scored as well")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        return run(options)
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    """Train, score, print."""
    configs = sorted((HERE / options.name).glob("*.toml"))
    stems = [config.stem for config in configs]
    if options.only is not None and NONE in options.only[1:] + options.only[:-1]:
        raise BadInput(f"--only: {NONE!r} stands beside other names, expected it alone")
    for name in options.only or ():
        if name not in (NONE, *stems):
            raise BadInput(f"--only: there is no {name!r} in {options.name}{did_you_mean(name, (*stems, NONE))}")
    configs = [config for config in configs if options.only is None or config.stem in options.only]
    beside = None if options.intensities is None else Intensities(weight=options.intensities)
    asked = Asked(options.refine, tuple(options.transforms), beside)
    given = models_of(options.models, [config.stem for config in configs])
    output = options.output / options.name
    output.mkdir(parents=True, exist_ok=True)
    cohort = COHORTS[Path(options.name).name](options.data, output / "images")
    for name, rows in {"manifest.csv": cohort.rows, **cohort.others}.items():
        write_table(output / name, rows)
    models: dict[str, Seeds] = {}
    for config in configs:
        folders = {seed: output / folder_of(config.stem, seed) for seed in options.seeds}
        for seed, folder in folders.items():
            if not trained(settings_of(config, output, seed), folder, options.device):
                return 1
        models[config.stem] = {seed: read_model(folder / "model") for seed, folder in folders.items()}
    models |= {name: {0: model} for name, model in given.items()}
    return report(cohort, output, models, asked)


def models_of(words: list[str], taken: list[str]) -> dict[str, ModelFolder]:
    """Models by name, of NAME=FOLDER.

    Args:
        words: what was given.
        taken: names that mean something else.

    Raises:
        BadInput: a word is something else, a name is taken or there twice, or a folder holds no model.
    """
    found: dict[str, ModelFolder] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not (name and folder):
            raise BadInput(f"--models: expected NAME=FOLDER, got {word!r}")
        if name in (*taken, *found):
            raise BadInput(f"--models: there is a model {name} already, expected another name for {folder}")
        found[name] = read_model(folder)
    return found


def machine() -> dict[str, str | int]:
    """What the seconds of a row depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def identity(model: ModelFolder) -> str:
    """A digest of a model's weights and settings."""
    settings = json.dumps(to_mapping(model.model.settings), sort_keys=True)
    return hashlib.sha256(f"{model.digest}{settings}".encode()).hexdigest()


def ways_of(model: ModelFolder, asked: Asked, *, first: bool) -> dict[str, tuple[Way, bool]]:
    """The ways in which a model registers, by what a row adds to its name, and whether pairs are also swapped.

    Args:
        model: what registers.
        asked: ways beside its own.
        first: whether it is for the first table.
    """
    plain = {"": (by_model(model), True)}
    if not isinstance(model.model.network, Solving):
        refined = {f", --refine {asked.refine}": (by_model(model, asked.refine), False)} if asked.refine else {}
        return plain | refined
    others = {f", {kind}": (by_features(model, kind), False) for kind in (asked.transforms if first else ())}
    if asked.intensities is not None:
        others |= {f", intensities {asked.intensities.weight:g}": (by_features(model, beside=asked.intensities), False)}
    return plain | others


def rows_of(name: str, seeds: Seeds, test: Test, asked: Asked, *, first: bool) -> list[Row]:
    """Rows of a configuration: for every way those of the seeds, and where there are several the mean of them."""
    ways = {seed: ways_of(model, asked, first=first) for seed, model in seeds.items()}
    rows: list[Row] = []
    for added in next(iter(ways.values())):
        found = [
            test.row(f"{name}{f', seed {seed}' if seed else ''}{added}", *way[added], of=identity(seeds[seed]))
            for seed, way in ways.items()
        ]
        rows += [*found, mean_of(f"{name}{added}, mean of seeds", found)] if len(found) > 1 else found
    return rows


def report(cohort: Cohort, output: Path, models: dict[str, Seeds], asked: Asked) -> int:
    """Score every way and print the tables.

    Args:
        cohort: whose test pairs are registered.
        output: folder of the figure and of all numbers.
        models: by name and seed.
        asked: in which other ways models register.
    """
    tables: dict[str, list[Row]] = {}
    for title, pairs in cohort.test.items():
        test = Test(title, pairs, output / "rows")
        settings = ", ".join(cohort.classical.values()) or "defaults"
        reference = test.row(f"classical, {settings}", classical(cohort.classical))
        rows = [test.row("as it lies", nothing), reference]
        for name, seeds in models.items():
            rows += rows_of(name, seeds, test, asked, first=not tables)
        sys.stdout.write(f"{title}\n\n{header()}\n" + "".join(f"{line(row, reference)}\n" for row in rows))
        timed = [f"{times_line(row)}\n" for row in rows if row.searches_features]
        sys.stdout.write(f"\n{times_header()}\n{''.join(timed)}" if timed else "")
        tables[title] = rows
    draw(tables, output / "results.png")
    named = {title: [pair.name for pair in pairs] for title, pairs in cohort.test.items()}
    numbers = {title: {"pairs": named[title], "rows": [row.to_mapping() for row in rows]} for title, rows in tables.items()}
    found = {"machine": machine(), "tables": numbers}
    (output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
