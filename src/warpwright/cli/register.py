"""`warpwright register`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import command_line, progress, say, say_json, tell_memory, warn
from warpwright.product.choices import Header, Initialise, Kind, Photograph, Preset, SimilarityName, Space
from warpwright.product.output import check_folder

__all__ = ["register"]


def register(
    fixed: Path,
    moving: Path,
    /,
    *,
    output: Path,
    transform: Kind | None = None,
    similarity: SimilarityName | None = None,
    preset: Preset | None = None,
    config: Path | None = None,
    initialise: Initialise | None = None,
    initial: Path | None = None,
    model: Path | None = None,
    refine: int = 0,
    refine_rate: float | None = None,
    refine_field: int = 0,
    prompt_labels: tuple[Path, Path] | None = None,
    prompt_points: tuple[Path, Path] | None = None,
    prompt_weight: float | None = None,
    score: bool = False,
    fixed_mask: Path | None = None,
    moving_mask: Path | None = None,
    fixed_labels: Path | None = None,
    moving_labels: Path | None = None,
    fixed_points: Path | None = None,
    moving_points: Path | None = None,
    fixed_series: str | None = None,
    moving_series: str | None = None,
    space: Space | None = None,
    photograph: Photograph | None = None,
    header: Header = "strict",
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    report: bool = False,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Register two images: find the map of points of FIXED to points of MOVING; it resamples MOVING onto FIXED.

    Args:
        fixed: image file or DICOM folder whose grid the result lives on.
        moving: image that is moved.
        output: new or empty folder for transform.h5, inverse.h5, moved.nii.gz, jacobian.nii.gz, figure.png, result.json.
        transform: kind of map; greedy unless --config or a model of features says otherwise.
        similarity: what makes two images alike: lncc (the default) or mse for one modality, mi or mind for two.
        preset: how much work to spend in a search by images; balanced by default.
        config: TOML or JSON file whose settings are laid over the preset's, or the result.json of an earlier search by images;
            --dry-run prints all settings; deformable, steps and tolerance are laid over those of a model of features, and
            intensities lets the images count beside its features.
        initialise: where the search begins: affine by default for the deformable kinds, moments for rigid and affine.
        initial: transform file, or folder of an earlier run, to begin from.
        model: model folder (train leaves one); its network registers the pair, in the place of a search;
            a model of features searches, with the transform named here.
        refine: steps on a copy of the model for this pair.
        refine_rate: learning rate of these steps.
        refine_field: steps of the solver on the field that the model gives, with the preset's similarity and transform.
        prompt_labels: label maps of FIXED and of MOVING that the search is to bring together.
        prompt_points: landmarks in FIXED and in MOVING that the search is to bring together.
        prompt_weight: how much the prompts count beside the images (1).
        score: also write score.nii.gz, from 0 to 1: where residuals can be trusted, as was learned beside the model
            (scheme.weighting of kind adaptivescoring).
        fixed_mask: weights of the fixed voxels in the similarity, fractions too: a score.nii.gz, for one.
        moving_mask: weights of the moving voxels in the similarity.
        fixed_labels: label map, only scored and drawn.
        moving_labels: label map, only scored and drawn.
        fixed_points: landmarks, only scored and drawn.
        moving_points: the same landmarks in the moving image.
        fixed_series: which series (UID or its ending) of a DICOM folder that holds several.
        moving_series: the same for MOVING.
        space: frame of the landmarks in a .csv.
        photograph: what to take of pictures in colour: the green channel, the grey of all, or, of the fundus, green with even
            contrast and the field of view as mask; also leaves moved.png, in colour.
        header: which geometry of a NIfTI file to take where its two differ.
        device: auto, cpu, cuda or cuda:0.
        threads: CPU threads.
        seed: of everything drawn at random (nothing is, so far); recorded.
        report: also write report.html, a page about the result (what `warpwright report` writes).
        dry_run: read and check everything, print the settings, and stop.
        force: replace the results of an earlier run.
        json: print the result for machines.
    """
    check_folder(output, force=force)
    from warpwright.product.choice import Choice
    from warpwright.product.plan import prepare
    from warpwright.product.words import result_lines

    plan = prepare(
        fixed,
        moving,
        choice=Choice(transform=transform, similarity=similarity, preset=preset, initialise=initialise, config=config),
        initial=initial,
        masks=(fixed_mask, moving_mask),
        labels=(fixed_labels, moving_labels),
        points=(fixed_points, moving_points),
        series=(fixed_series, moving_series),
        space=space,
        device=device,
        threads=threads,
        seed=seed,
        header=header,
        model=model,
        refine=refine,
        refine_rate=refine_rate,
        refine_field=refine_field,
        prompt_labels=prompt_labels,
        prompt_points=prompt_points,
        prompt_weight=prompt_weight,
        score=score,
        photograph=photograph,
    )
    if dry_run:
        say_json({**plan.to_mapping(), "notes": plan.notes})
        return
    tell_memory(plan.memory)
    with progress() as listen:
        result = plan.run(listen)
    result.save(output, force=force, command=command_line())
    if report:
        from warpwright.product.report import write_report

        write_report(output)
    if json:
        say_json({"output": output, **result.summary()})
    else:
        say([*result_lines(result), f"written     {output}"])
    warn(result.verdict.sentences)
