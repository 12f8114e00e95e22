"""`warpwright evaluate`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import say, say_json, warn
from warpwright.errors import BadInput
from warpwright.product.choices import Header, Space
from warpwright.product.output import check_file, write_json

__all__ = ["evaluate"]


def evaluate(
    *,
    fixed_labels: Path | None = None,
    moved_labels: Path | None = None,
    fixed_points: Path | None = None,
    moving_points: Path | None = None,
    transform: Path | None = None,
    pairs: Path | None = None,
    against: Path | None = None,
    space: Space | None = None,
    fixed: Path | None = None,
    moving: Path | None = None,
    output: Path | None = None,
    header: Header = "strict",
    force: bool = False,
    json: bool = False,
) -> None:
    """Score label maps, landmarks and transforms.

    Args:
        fixed_labels: label map of the fixed image.
        moved_labels: label map of the moving image, moved onto the fixed grid.
        fixed_points: landmarks of the fixed image.
        moving_points: the same places in the moving image; with --transform also scored through it.
        transform: transform file, ANTs prefix, or the folder that `register` left.
        pairs: .csv or .jsonl with the column id and any of: fixed_labels,moved_labels; fixed_labels,moving_labels,transform
            (the labels are pulled through it); fixed_points,moving_points; transform. Images fixed,moving are used for their
            grids. Paths are relative to the file.
        against: a second such table with the same ids, another result to compare with by Wilcoxon's test.
        space: frame of the points in a .csv of points.
        fixed: fixed image, for points in voxels, to tell points outside it, and for a transform without a field.
        moving: moving image, for points in voxels.
        output: .json file to write the scores to, or .csv for those of each label of --pairs.
        header: which geometry of a NIfTI file to take where its two differ.
        force: replace an existing output.
        json: print the scores for machines.
    """
    if output is not None:
        check_file(output, force=force)
    labels, points = _pair(fixed_labels, moved_labels, "labels"), _pair(fixed_points, moving_points, "points")
    from warpwright.product.evaluate import evaluate as score
    from warpwright.product.evaluate_pairs import check_label_table, write_label_table
    from warpwright.product.words import fact_lines, pair_lines

    listed = output is not None and output.suffix.lower() == ".csv"
    if output is not None and listed:
        check_label_table(output, pairs)
    given = {"labels": labels, "points": points, "transform": transform, "pairs": pairs, "against": against}
    scores = score(**given, space=space, images=(fixed, moving), header=header)
    if output is not None and listed:
        write_label_table(output, scores["pairs"]["pairs"])
    elif output is not None:
        write_json(output, scores)
    warn(scores["warnings"])
    if json:
        say_json(scores)
    else:
        say(fact_lines({key: value for key, value in scores.items() if key not in ("pairs", "warnings")}))
        say(pair_lines(scores["pairs"]) if pairs is not None else ())


def _pair(fixed: Path | None, other: Path | None, what: str) -> tuple[Path, Path] | None:
    if (fixed is None) != (other is None):
        raise BadInput(f"only one of the two {what} was given, expected both")
    return None if fixed is None or other is None else (fixed, other)
