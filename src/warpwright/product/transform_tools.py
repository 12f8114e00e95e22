"""Compose, invert, convert and inspect transform files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warpwright.errors import BadInput
from warpwright.evaluation import inverse_consistency
from warpwright.geometry import Grid, Image
from warpwright.io.ants import ants_files, write_ants
from warpwright.io.image import read_image, write_image
from warpwright.io.transform import own_grid, read_transform, write_transform
from warpwright.product.choices import Header
from warpwright.product.output import check_file
from warpwright.product.scores import determinant, determinant_figures
from warpwright.product.source import fields_of
from warpwright.transforms import Affine, Composite, DisplacementField, Transform, split

__all__ = ["compose_files", "convert_file", "describe_transform", "invert_file", "jacobian_file"]

FIELD = (".nii", ".nii.gz")  # formats that hold one field and nothing else
FLOOR = 1e-6  # a determinant below has its logarithm taken here


def compose_files(transforms: Sequence[str | Path], output: str | Path, *, force: bool = False) -> Transform:
    """Write `T1 o T2 o ... o Tn`: the last one acts first, on points of its fixed image.

    Raises:
        BadInput: a file cannot be read, the numbers of axes differ, or the output exists.
    """
    if len(transforms) < 2:
        raise BadInput(f"compose needs at least two transforms, got {len(transforms)}")
    check_file(output, force=force)
    composed = read_transform(transforms[0])
    for path in transforms[1:]:
        part = read_transform(path)
        if part.dim != composed.dim:
            raise BadInput(f"{path}: has {part.dim} axes, the transforms before it have {composed.dim}")
        composed = composed @ part
    write_transform(output, composed)
    return composed


def invert_file(
    transform: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> dict[str, Any]:
    """Write the map back and tell how well it undoes the map.

    Args:
        transform: file.
        output: file to write.
        reference: an image on whose grid a field is inverted and the error is measured; default the field's own.
        force: replace an existing output.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        `inverse_consistency`: mean, p95, max of |inverse(transform(x)) - x| in mm, and `max_voxels`, the last in voxels;
        empty for an affine, whose inverse is exact.

    Raises:
        BadInput: the file cannot be read or the output exists.
    """
    check_file(output, force=force)
    forward = read_transform(transform, header=header)
    if isinstance(forward, Affine):
        write_transform(output, forward.inverse())
        return {"inverse_consistency": {}}
    grid = _grid(forward, reference, header)
    if reference is not None:
        affine, field = split(forward, grid)
        forward = affine @ field
    backward = forward.inverse()
    write_transform(output, backward)
    errors = inverse_consistency(forward, backward, grid)
    return {"inverse_consistency": errors, "max_voxels": errors["max"] / min(grid.spacing)}


def convert_file(
    transform: str | Path,
    output: str | Path,
    *,
    ants: bool = False,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> tuple[Path, ...]:
    """Write a transform in the format of the output's suffix, or as the files of an ANTs registration.

    Args:
        transform: file, or the prefix of an ANTs registration (`PREFIX0GenericAffine.mat` ...).
        output: file; with `ants` a prefix. `.nii.gz` holds one field, so the whole map is flattened for it.
        ants: write an ANTs pair.
        reference: an image on whose grid the map is flattened; default the grid of the field that acts first.
        force: replace existing outputs.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        The files written.

    Raises:
        BadInput: the transform cannot be read, the format cannot hold it, or an output exists.
    """
    given = read_transform(transform, header=header)
    grid = None if reference is None else _grid(given, reference, header)
    if ants:
        for path in ants_files(output):
            check_file(path, force=force)
        return write_ants(output, given, grid or _grid(given, None, header))
    check_file(output, force=force)
    if grid is not None and not str(output).endswith(FIELD):
        affine, field = split(given, grid)
        given = affine @ field
    write_transform(output, given, grid)
    return (Path(output),)


def jacobian_file(
    transform: str | Path,
    output: str | Path,
    *,
    log: bool = False,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> dict[str, float]:
    """Write the determinant of the full map in mm, or its natural logarithm (of 1e-6 where it folds).

    Returns:
        `folded_percent`, `min_determinant` and `sd_log_jacobian`.

    Raises:
        BadInput: the transform cannot be read, its grid is not known, or the output exists.
    """
    check_file(output, force=force)
    given = read_transform(transform, header=header)
    image = determinant(given, _grid(given, reference, header))
    values = image.data.clamp_min(FLOOR).log() if log else image.data
    write_image(output, Image(values, image.grid, "jacobian"))
    return determinant_figures(image)


def describe_transform(path: str | Path, *, header: Header = "strict") -> dict[str, Any]:
    """What a transform file holds, part by part (the last part acts first), in plain values."""
    given = read_transform(path, header=header)
    parts = given.parts if isinstance(given, Composite) else (given,)
    return {"file": str(path), "kind": "transform", "axes": given.dim, "parts": [_describe_part(part) for part in parts]}


def _describe_part(part: Transform) -> dict[str, Any]:
    if isinstance(part, Affine):
        linear = part.matrix[:-1, :-1]
        return {"type": "affine", "matrix_ras": part.matrix.tolist(), "determinant": float(np.linalg.det(linear))}
    grid = fields_of(part)[0].grid
    out: dict[str, Any] = {"type": type(part).__name__, "shape": list(grid.shape), "spacing_mm": list(grid.spacing)}
    if isinstance(part, DisplacementField):
        lengths = torch.einsum("ij,j...->i...", torch.tensor(grid.affine[:-1, :-1]).float(), part.displacement.float()).norm(
            dim=0
        )
        out["displacement_mm"] = {"mean": float(lengths.mean()), "max": float(lengths.max())}
        out |= determinant_figures(determinant(part, grid))
    return out


def _grid(transform: Transform, reference: str | Path | None, header: Header) -> Grid:
    if reference is not None:
        grid = read_image(reference, header=header).grid
        if grid.dim != transform.dim:
            raise BadInput(f"{reference}: has {grid.dim} axes, the transform has {transform.dim}")
        return grid
    fields = fields_of(transform)
    grid = own_grid(transform) or (fields[-1].grid if fields else None)
    if grid is None:
        raise BadInput("the transform is an affine and brings no grid along, expected an image with --reference")
    return grid
