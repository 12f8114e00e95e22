"""Whether the images of a run can serve its loss and its batches, found out before anything is trained."""

from __future__ import annotations

from warpwright.data import Case, Cohort
from warpwright.data.manifest import first_of
from warpwright.energies.losses import LandmarkDistance, Overlap
from warpwright.errors import BadInput
from warpwright.training.settings import Training

__all__ = ["check_suitable"]


def check_suitable(training: Training, cohort: Cohort) -> None:
    """That every training image has what the loss needs, and that the pairs of a batch have one shape.

    Raises:
        BadInput: the sentence names the images.
    """
    cases = [case for case in cohort.cases if case.split == "train"]
    for term in training.model.loss:
        if isinstance(term, Overlap):
            _refuse([case for case in cases if case.labels is None], "an overlap loss", "label maps")
        if isinstance(term, LandmarkDistance):
            _refuse([case for case in cases if case.points is None], "a landmark loss", "points")
    if training.batch > 1 and training.model.preparation.shape is None and cohort.pairing != "atlas":
        raise BadInput(f"batch = {training.batch} needs images of one shape, expected a shape in [model.preparation]")


def _refuse(without: list[Case], term: str, what: str) -> None:
    if without:
        names = first_of([case.id for case in without])
        raise BadInput(f"{term} needs {what} of all training images, there are none of {names}")
