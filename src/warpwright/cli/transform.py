"""`warpwright transform compose|invert|convert|jacobian|info`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwright.cli.console import say, say_json
from warpwright.product.choices import Header

__all__ = ["compose", "convert", "info", "invert", "jacobian"]


def compose(
    *transforms: Path,
    output: Path,
    reference: Path | None = None,
    header: Header = "strict",
    force: bool = False,
    json: bool = False,
) -> None:
    """Join transforms into one: T1 o T2 o ... o Tn, the last one acts first.

    Args:
        transforms: two or more files, ANTs prefixes, or folders that `register` left.
        output: file to write, whose suffix is the format; .nii.gz holds the whole map as one field.
        reference: image on whose grid a field is written (the fixed image of the last transform); else the transforms' own.
        header: which geometry of a NIfTI file to take where its two differ.
        force: replace an existing output.
        json: print the result for machines.
    """
    from warpwright.product.transform_tools import compose_files

    compose_files(transforms, output, reference=reference, force=force, header=header)
    _tell({"output": output}, json)


def invert(
    transform: Path,
    /,
    *,
    output: Path,
    reference: Path | None = None,
    header: Header = "strict",
    force: bool = False,
    json: bool = False,
) -> None:
    """Write the map back, and tell how exact it is.

    Args:
        transform: file, ANTs prefix, or the folder that `register` left.
        output: file to write, whose suffix is the format; .nii.gz holds the whole inverse as one field.
        reference: the MOVING image: the inverse, which maps its points, becomes one field on its grid; else the transform's
            parts are inverted where they are.
        header: which geometry of a NIfTI file to take where its two differ.
        force: replace an existing output.
        json: print the result for machines.
    """
    from warpwright.product.transform_tools import invert_file

    errors = invert_file(transform, output, reference=reference, force=force, header=header)
    _tell({"output": output, **errors}, json)


def convert(
    transform: Path,
    /,
    *,
    output: Path,
    ants: bool = False,
    reference: Path | None = None,
    header: Header = "strict",
    force: bool = False,
    json: bool = False,
) -> None:
    """Write a transform in another format.

    Args:
        transform: file, ANTs prefix, or the folder that `register` left.
        output: file, whose suffix is the format (.h5 any, .tfm .txt .mat an affine, .nii.gz one field); a prefix with --ants.
        ants: write PREFIX0GenericAffine.mat, PREFIX1Warp.nii.gz and PREFIX1InverseWarp.nii.gz.
        reference: image on whose grid a field is written; else the transform's own.
        header: which geometry of a NIfTI file to take where its two differ.
        force: replace existing outputs.
        json: print the result for machines.
    """
    from warpwright.product.transform_tools import convert_file

    files = convert_file(transform, output, ants=ants, reference=reference, force=force, header=header)
    _tell({"output": files}, json)


def jacobian(
    transform: Path,
    /,
    *,
    output: Path,
    log: bool = False,
    reference: Path | None = None,
    header: Header = "strict",
    force: bool = False,
    json: bool = False,
) -> None:
    """Write the Jacobian determinant of the full map in mm.

    Args:
        transform: file, ANTs prefix, or the folder that `register` left.
        output: image file to write.
        log: write the natural logarithm.
        reference: image whose grid is used; else the transform's own.
        header: which geometry of a NIfTI file to take where its two differ.
        force: replace an existing output.
        json: print the result for machines.
    """
    from warpwright.product.transform_tools import jacobian_file

    figures = jacobian_file(transform, output, log=log, reference=reference, force=force, header=header)
    _tell({"output": output, **figures}, json)


def info(transform: Path, /, *, header: Header = "strict", json: bool = False) -> None:
    """Tell what a transform file holds.

    Args:
        transform: file, ANTs prefix, or the folder that `register` left.
        header: which geometry of a NIfTI file to take where its two differ.
        json: print the result for machines.
    """
    from warpwright.product.transform_tools import describe_transform

    _tell(describe_transform(transform, header=header), json)


def _tell(facts: Mapping[str, Any], json: bool) -> None:
    from warpwright.product.words import fact_lines

    if json:
        say_json(facts)
    else:
        say(fact_lines(facts))
