"""Register two images: files, images of other libraries or arrays in, a `RegistrationResult` out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from warpwright.methods import Progress
from warpwright.product.choice import Choice
from warpwright.product.choices import Header, Initialise, Kind, Photograph, Preset, SimilarityName, Space
from warpwright.product.inputs import ImageLike, PointsLike
from warpwright.product.model_folder import ModelFolder
from warpwright.product.plan import prepare
from warpwright.product.result import RegistrationResult
from warpwright.transforms import Transform

__all__ = ["register"]


def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    transform: Kind | None = None,
    similarity: SimilarityName | None = None,
    preset: Preset | None = None,
    config: str | Path | None = None,
    initialise: Initialise | None = None,
    initial: str | Path | Transform | None = None,
    model: str | Path | ModelFolder | None = None,
    refine: int = 0,
    refine_rate: float | None = None,
    refine_field: int = 0,
    prompt_labels: tuple[ImageLike, ImageLike] | None = None,
    prompt_points: tuple[PointsLike, PointsLike] | None = None,
    prompt_weight: float | None = None,
    score: bool = False,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    fixed_labels: ImageLike | None = None,
    moving_labels: ImageLike | None = None,
    fixed_points: PointsLike | None = None,
    moving_points: PointsLike | None = None,
    fixed_series: str | None = None,
    moving_series: str | None = None,
    space: Space | None = None,
    photograph: Photograph | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    header: Header = "strict",
    progress: Callable[[Progress], None] | None = None,
) -> RegistrationResult:
    """Find the map of points of `fixed` to points of `moving`; it resamples the moving image onto the fixed grid.

    Images, masks and labels are given as paths, as an `Image`, as images of nibabel or SimpleITK, or as `(array, affine)` of
    numpy or torch with a voxel to world RAS+ mm affine (see `ImageLike`). Arrays without an affine are taken where both images
    are such: their voxels count as 1 mm apart, which is noted in the result.

    Args:
        fixed: the image that stays.
        moving: the image that is moved onto it.
        transform: what kind of map; a deformable one begins with an affine. Default what `config` says, else "greedy"; with
            a model of features, what it was trained with.
        similarity: what makes two images alike. Default what `config` says, else "lncc", for images of one kind; "mi" or
            "mind" for two kinds.
        preset: how much work to spend in a search by images. Default "balanced".
        config: a `.toml` or `.json` file whose settings are laid over the preset's; or the `result.json` of an earlier
            search by images. Its `deformable`, `steps` and `tolerance` are laid over those that a model of features was
            trained with, and its `intensities` let the images count beside its features.
        initialise: where the search begins. Default "affine" for deformable transforms, "moments" for linear ones.
        initial: a transform to begin from (a file, or the folder of an earlier run), world points of fixed to world points
            of moving.
        model: a model folder that `warpwright train` left (or one that `read_model` read);
            it registers the pair, in the place of a search; a model of features searches, with the transform named here.
        refine: steps on a copy of the model's weights for this pair.
        refine_rate: learning rate of these steps.
        refine_field: steps of the solver on the field that the model gives, with the preset's similarity and transform.
        prompt_labels: label maps of both images that the search is to bring together; they do not count in the mean Dice.
        prompt_points: landmarks of both images, in the same order, that the search is to bring together.
        prompt_weight: how much the prompts count. Default 1: labels that do not overlap cost as much as images that have
            nothing to do with each other, a landmark one voxel off as much as those do around it.
        score: tell where residuals can be trusted, by the score that was learned beside the model (see `result.trust`).
        fixed_mask: weights of the fixed image's voxels, on its grid, >= 0; a score map is one.
        moving_mask: weights of the moving image's voxels, on its grid, >= 0.
        fixed_labels: labels on the fixed grid; only scored and drawn.
        moving_labels: labels on the moving grid; only scored and drawn.
        fixed_points: landmarks in the fixed image: a file, or world points RAS+ mm (N, D); only scored and drawn.
        moving_points: the same places in the moving image, in the same order.
        fixed_series: which series (UID or its ending) of a DICOM folder that holds several.
        moving_series: the same for the moving image.
        space: frame of the coordinates in a `.csv` of points.
        photograph: what to take of two pictures in colour: "green", the green channel; "grey", the luminance; "fundus", the
            green channel with its contrast evened out (0 to 1), and as masks, where none are given, the fields of view. The
            result then also holds the moved picture in colour. Default: images have one channel.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: CPU threads; default torch's.
        seed: of everything drawn at random (nothing is, so far); recorded.
        header: which affine of a NIfTI image counts when its two disagree; "strict" refuses such an image.
        progress: called after every step.

    Raises:
        BadInput: anything above cannot be used.
        Failed: the work could not be done.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> import warpwright
        >>> x, y = np.meshgrid(np.arange(24.0), np.arange(20.0), indexing="ij")
        >>> fixed = np.exp(-((x - 12) ** 2 / 30 + (y - 10) ** 2 / 10))
        >>> moving = np.exp(-((x - 14) ** 2 / 30 + (y - 9) ** 2 / 10))
        >>> affine = np.diag([1.5, 1.5, 1.0])  # voxels of 1.5 mm
        >>> result = warpwright.register((fixed, affine), (moving, affine), transform="affine")
        >>> result.verdict.improved
        True
        >>> middle = torch.tensor([[18.0, 15.0]], dtype=torch.float64)  # of the fixed spot, in the world
        >>> result.transform(middle).round(decimals=1).tolist()
        [[21.0, 13.5]]
    """
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
    return plan.run(progress)
