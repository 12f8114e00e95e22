"""`warpwright template`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.cohort import progress_of_pairs
from warpwright.cli.cohort_options import Where
from warpwright.cli.console import say, say_json, warn
from warpwright.errors import BadInput, first_of
from warpwright.product.choices import Header, Initialise, Kind, Preset, SimilarityName

__all__ = ["template"]

WHERE = Where()  # nothing is asked for


def template(
    *images: Path,
    output: Path,
    rounds: int = 4,
    sharpen: float = 0.25,
    initial: Path | None = None,
    spacing: float | None = None,
    transform: Kind | None = None,
    similarity: SimilarityName | None = None,
    preset: Preset | None = None,
    config: Path | None = None,
    initialise: Initialise | None = None,
    model: Path | None = None,
    header: Header = "strict",
    device: str = "auto",
    where: Where = WHERE,
    keep: bool = False,
    json: bool = False,
) -> None:
    """Make the mean of many images in their mean shape; the same command goes on where an earlier one stopped.

    Args:
        images: at least two, of one channel each, in any order.
        output: new or empty folder, or that of an earlier run: template.nii.gz, index.html, pairs.csv for `warpwright cohort`.
        rounds: of registering all images to the template and making the next one of their means; the first is affine.
        sharpen: how much of what a blur of one voxel takes away is added to a mean.
        initial: image that the first round registers to, on whose grid the template is; by default a mean is made.
        spacing: mm, of the template without --initial; by default along each axis the median of the images'.
        transform: kind of map, as of `register`; so are the options to --device.
        similarity: what makes two images alike.
        preset: how much work to spend; balanced by default.
        config: TOML or JSON file whose settings are laid over the preset's; with it, all rounds are alike.
        initialise: where the search begins.
        model: model folder (train leaves one).
        header: which geometry of a NIfTI file to take where its two differ.
        device: auto, cpu, cuda or cuda:0.
        where: where the work runs; not --shard.
        keep: keep what the registrations of each round left, with figures.
        json: print the outcome for machines.
    """
    if where.part() is not None:
        raise BadInput("--shard runs a part, a template is the mean of all: expected --workers, --scheduler or --slurm")
    engine = where.engine()
    from dataclasses import asdict

    from warpwright.cohort.work import Options, absolute
    from warpwright.template.build import build
    from warpwright.template.work import Template

    options = Options(
        transform=transform,
        similarity=similarity,
        preset=preset,
        config=None if config is None else absolute(config),
        initialise=initialise,
        model=None if model is None else absolute(model),
        header=header,
        device=device,
        figures=keep,
    )
    wanted = Template(images=tuple(images), rounds=rounds, sharpen=sharpen, initial=initial, spacing=spacing, options=options)
    with progress_of_pairs() as told:
        made = build(wanted, output, engine, lambda _, *counts: told(*counts), keep=keep)
    warn(f"round {k}: there are warnings about {first_of(one.warnings)}" for k, one in enumerate(made) if one.warnings)
    if json:
        say_json({"output": output, "images": len(images), "rounds": [asdict(one) for one in made]})
        return
    last = made[-1]
    say(
        [
            f"images      {len(images)}",
            f"rounds      {len(made) - 1}",
            f"shape off   {last.shape_mm:.3f} mm in the last round",
            f"change      {last.change:.4f} of the range in the last round",
            f"template    {output / 'template.nii.gz'}",
            f"look at     {output / 'index.html'}",
        ]
    )
