"""Whether the images of a run can serve its model, its loss and its batches, found out before anything is trained."""

from __future__ import annotations

from warpwright.data import Case, Cohort
from warpwright.energies.losses import LandmarkDistance, Overlap
from warpwright.errors import BadInput, first_of
from warpwright.methods import Implicit, layered
from warpwright.training.settings import Training

__all__ = ["check_suitable"]


def check_suitable(training: Training, cohort: Cohort) -> None:
    """That every training image has what the loss and the model need, and that the pairs of a batch have one shape.

    Also that layers of the model have a part in it; those that a model has unless it is told otherwise are let pass.

    Raises:
        BadInput: the sentence names the images.
    """
    model, cases = training.model, [case for case in cohort.cases if case.split == "train"]
    if model.layers not in ((), type(model).layers) and not layered(model.network):
        name = type(model.network).__name__.lower()
        raise BadInput(f"model.layers have no part in a network of the kind {name}: expected layers = [] in [model]")
    told = model.network.told if isinstance(model.network, Implicit) else None
    if told is not None and told.labels:
        _refuse([case for case in cases if case.labels is None], "model.network.told", "label maps")
    if told is not None and told.points:
        _refuse([case for case in cases if case.points is None], "model.network.told", "points")
        if training.batch > 1:
            raise BadInput(
                f"model.network.told tells landmarks of one pair at a time, expected batch = 1, got {training.batch}"
            )
    for term in model.loss:
        if isinstance(term, Overlap):
            _refuse([case for case in cases if case.labels is None], "an overlap loss", "label maps")
        if isinstance(term, LandmarkDistance):
            _refuse([case for case in cases if case.points is None], "a landmark loss", "points")
    if training.batch > 1 and model.preparation.shape is None and cohort.pairing != "atlas":
        raise BadInput(f"batch = {training.batch} needs images of one shape, expected a shape in [model.preparation]")


def _refuse(without: list[Case], term: str, what: str) -> None:
    if without:
        names = first_of([case.id for case in without])
        raise BadInput(f"{term} needs {what} of all training images, there are none of {names}")
