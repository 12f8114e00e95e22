"""`warpwright apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from warpwright.cli.console import say, say_json, warn
from warpwright.errors import BadInput
from warpwright.product.choices import Header, Side, Space

__all__ = ["apply"]


def apply(
    transform: Path,
    /,
    *,
    output: Path,
    image: Path | None = None,
    labels: Path | None = None,
    points: Path | None = None,
    inverse: bool = False,
    reference: Path | None = None,
    from_: Annotated[Side | None, Parameter(name="--from")] = None,
    space: Space | None = None,
    header: Header = "strict",
    series: str | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Pull an image or labels of MOVING onto the grid of FIXED, or carry points from one to the other.

    Args:
        transform: transform file, ANTs prefix, or the folder that `register` left.
        output: file to write; its suffix is the format.
        image: moving image.
        labels: moving label map.
        points: .csv (needs --space) or .mrk.json, of the image named by --from.
        inverse: the other way: from FIXED onto MOVING (images and labels).
        reference: image whose grid the result gets; else the grid that the transform brings along.
        from_: the image that the points are in.
        space: frame of the points in a .csv.
        header: which geometry of a NIfTI file to take where its two differ.
        series: which series of a DICOM folder that holds several: its UID, or the UID's ending.
        force: replace an existing output.
        json: print the result for machines.
    """
    if sum(given is not None for given in (image, labels, points)) != 1:
        raise BadInput("apply needs exactly one of --image, --labels and --points")
    if points is not None and (from_ is None or inverse):
        raise BadInput("points need --from fixed or --from moving, which chooses the direction, and no --inverse")
    if points is None and (from_ is not None or space is not None):
        raise BadInput("--from and --space belong to --points, images need neither")
    from warpwright.product.apply import apply_to_image, apply_to_labels, apply_to_points

    common = {"reference": reference, "force": force, "header": header, "series": series}
    if points is not None and from_ is not None:
        done = apply_to_points(transform, points, output, from_image=from_, space=space, **common)
    elif labels is not None:
        done = apply_to_labels(transform, labels, output, inverse=inverse, **common)
    else:
        done = apply_to_image(transform, image or "", output, inverse=inverse, **common)
    warn(done.warnings)
    if json:
        say_json({"output": done.output, "warnings": done.warnings})
    else:
        say([f"written {done.output}"])
