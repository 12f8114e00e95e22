"""What `register` returns and leaves on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from warpwright.geometry import Image
from warpwright.io.image import write_image
from warpwright.io.points import Points
from warpwright.io.transform import write_transform
from warpwright.methods import Registration
from warpwright.product.deformation import drawn_displacement
from warpwright.product.figure import Picture, draw
from warpwright.product.output import plain, whole_folder, write_json
from warpwright.product.scores import Scores, Verdict, energy_text, inverse_text
from warpwright.product.trust import Trust
from warpwright.transforms import Affine, Transform

__all__ = ["Labels", "Landmarks", "RegistrationResult"]

OPTIONAL = ("figure.png", "moved.png", "score.nii.gz", "report.html")  # files of a result that not every run leaves


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Label maps of a pair: of fixed, of moving, and the latter at its initial position and through the transform."""

    fixed: Image
    moving: Image
    before: Image
    moved: Image


@dataclass(frozen=True, eq=False, kw_only=True)
class Landmarks:
    """World points of a pair, row by row the same place, and what a person should know about them."""

    fixed: Points
    moving: Points
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RegistrationResult:
    """A finished registration.

    Args:
        fixed: the fixed image.
        moving: the moving image on its own grid.
        before: the moving image on the fixed grid at its initial position.
        moved: the moving image on the fixed grid through the transform.
        colours: likewise the photograph that the moving image is taken from, (C, *S), 0 to 255; None if from none.
        jacobian: determinant of the full map in mm, on the fixed grid.
        initial: where the moving image lay at first, world points of fixed to world points of moving.
        registration: what the method returned.
        labels: label maps, if given.
        landmarks: landmarks, if given.
        scores: the figures.
        verdict: whether they are good.
        trust: where residuals can be trusted, if that was asked for.
        record: settings, versions, seconds, memory, inputs: what is needed to do it again.

    Examples:
        >>> import numpy as np
        >>> import warpwright
        >>> x, y = np.meshgrid(np.arange(24.0), np.arange(20.0), indexing="ij")
        >>> fixed, moving = (np.exp(-((x - c) ** 2 / 30 + (y - 10) ** 2 / 10)) for c in (12, 14))
        >>> result = warpwright.register(fixed, moving, transform="rigid")
        >>> result  # doctest: +ELLIPSIS
        <RegistrationResult: improved
          fixed   <Image 'fixed': 24 x 20 voxels of 1 mm, float32 from ... to 1>
          moving  <Image 'moving': 24 x 20 voxels of 1 mm, float32 from ... to 1>
          similarity energy: ... -> ...
          images overlap: ... % of the smaller one
          folds: 0 % of the voxels; least volume ratio 1
          there and back: off by less than 0.001 mm
          ... s, 1 note (result.notes)>
        >>> float(abs(result.moved.data - result.fixed.data).mean()) < 0.01
        True
        >>> warpwright.to_simpleitk(result.moved).GetSize()
        (24, 20)
    """

    fixed: Image
    moving: Image
    before: Image
    moved: Image
    colours: Image | None = None
    jacobian: Image
    initial: Transform
    registration: Registration
    labels: Labels | None
    landmarks: Landmarks | None
    scores: Scores
    verdict: Verdict
    trust: Trust | None
    record: Mapping[str, Any]

    def __repr__(self) -> str:
        from warpwright.product.display import result_text

        return result_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, figure, table of figures, notes."""
        from warpwright.product.display import result_html

        return result_html(self)

    @property
    def transform(self) -> Transform:
        """World points of fixed to world points of moving: it resamples the moving image onto the fixed grid."""
        return self.registration.forward

    @property
    def inverse(self) -> Transform:
        """World points of moving to world points of fixed."""
        return self.registration.backward

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the images, the landmarks, the method and the result."""
        landmarks = () if self.landmarks is None else self.landmarks.notes
        return (*self.fixed.notes, *self.moving.notes, *landmarks, *self.registration.notes, *self.verdict.notes)

    def summary(self) -> dict[str, Any]:
        """All of `result.json`."""
        verdict = asdict(self.verdict)
        stages = [asdict(stage) for stage in self.registration.stages]
        scores = self.scores.to_mapping() | ({} if self.trust is None else {"trust": self.trust.figures})
        return plain({"verdict": verdict, "scores": scores, "stages": stages, "notes": self.notes, **self.record})

    def save(self, directory: str | Path, *, force: bool = False, command: str | None = None, figure: bool = True) -> Path:
        """Write transform.h5, inverse.h5, moved.nii.gz, jacobian.nii.gz, figure.png and result.json; all or none.

        Of photographs also moved.png, and score.nii.gz where it was asked for.

        Args:
            directory: a new or empty folder, or any if `force`.
            force: replace the results of an earlier run, its report too; other files in the folder stay.
            command: the command line that led here, for `result.json`.
            figure: whether to draw figure.png.

        Raises:
            BadInput: the folder is not empty or cannot be written.
            Failed: writing failed on the way.
        """
        with whole_folder(directory, force=force) as folder:
            self.write(folder, command=command, figure=figure)
            written = {path.name for path in folder.iterdir()}
        for name in set(OPTIONAL) - written:  # of an earlier run, which would be taken for this one's
            (Path(directory) / name).unlink(missing_ok=True)
        return Path(directory)

    def write(self, folder: Path, *, command: str | None = None, figure: bool = True) -> None:
        """Write the files of `save`, one after the other, into an empty folder; what is cut off leaves some of them.

        Args:
            folder: is there.
            command: as `save` has it.
            figure: as `save` has it.

        Raises:
            Failed, OSError: writing failed on the way.
        """
        with ThreadPoolExecutor(1) as beside:
            images = beside.submit(self._write_images, folder)  # compression runs without Python's lock
            if self.record["threads"] == 1:
                images.result()
            write_transform(folder / "transform.h5", self.transform)
            write_transform(folder / "inverse.h5", self.inverse)
            if figure:
                draw(self.picture(), folder / "figure.png")
            write_json(folder / "result.json", {"command": command, **self.summary()})
            images.result()

    def _write_images(self, folder: Path) -> None:
        write_image(folder / "moved.nii.gz", self.moved)
        write_image(folder / "jacobian.nii.gz", self.jacobian)
        if self.colours is not None:
            write_image(folder / "moved.png", self.colours)
        if self.trust is not None:
            write_image(folder / "score.nii.gz", self.trust.score_map)

    def picture(self) -> Picture:
        """What `figure.png` shows: the deformation without its affine part, everything else of the full map."""
        grid = self.fixed.grid
        points: dict[str, Tensor] = {}
        if self.landmarks is not None:
            carried = {"fixed": Affine.identity(grid.dim), "before": self.initial.inverse(), "moved": self.inverse}
            for name, through in carried.items():
                world = self.landmarks.fixed.world if name == "fixed" else self.landmarks.moving.world
                points[f"{name}_points"] = grid.to_voxel(through(world))
        labels = self.labels
        return Picture(
            fixed=self.fixed,
            before=self.before,
            moved=self.moved,
            displacement=drawn_displacement(self.transform, grid),
            jacobian=self.jacobian,
            score=None if self.trust is None else self.trust.score_map,
            fixed_labels=None if labels is None else labels.fixed,
            before_labels=None if labels is None else labels.before,
            moved_labels=None if labels is None else labels.moved,
            title=self._title(),
            warning="; ".join(self.verdict.sentences),
            **points,
        )

    def _title(self) -> str:
        scores = self.scores
        words = [f"similarity {energy_text(scores.energy_before)} → {energy_text(scores.energy_after)}"]
        before, after = scores.mean_dice
        if not math.isnan(after):
            words.append(f"Dice {before:.3f} → {after:.3f}")
        if scores.tre_after:
            named = "prompted landmarks" if scores.tre_prompted else "landmarks"
            words.append(f"{named} {scores.tre_before['mean']:.2f} → {scores.tre_after['mean']:.2f} mm")
        words.append(f"folds {scores.folded_percent:.2g} %")
        words.append(f"volume ratio {scores.min_determinant:.2g} to {float(self.jacobian.data.max()):.2g}")
        words.append(f"inverse {inverse_text(scores.inverse_consistency)}")
        names = f"fixed {_short(self.fixed.name)}      moving {_short(self.moving.name)}"
        return f"{names}\n{'      '.join(words)}"


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"…{name[-59:]}"
