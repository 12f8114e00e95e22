"""The small real image pairs and the model that ship with the package, as paths.

Each folder under `pairs` has a README.md with source, licence and what was changed. `tools/make_bundled_data.py` in the
repository makes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

__all__ = ["Pair", "bundled_pairs"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images to be registered and what is known to score the result.

    Args:
        name: short, unique, fit for a folder name.
        fixed: the image whose grid the result lives on.
        moving: the image that is moved.
        fixed_labels: label map on the grid of `fixed`.
        moving_labels: label map on the grid of `moving`.
        fixed_points: CSV with the header id,x,y,z.
        moving_points: CSV; the same ids in the same order as `fixed_points`.
        points_space: frame of the points; "lps" is ITK's world, mm.
        similarity: what suits the pair where the default does not: "lncc", "mse", "mi" or "mind".
        labels_to_score: labels whose overlap means something; None when there are no labels.
        models: folders of the bundled models that are for such images.
        description: one sentence for a person.
    """

    name: str
    fixed: Path
    moving: Path
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    fixed_points: Path | None = None
    moving_points: Path | None = None
    points_space: Literal["ras", "lps", "voxel"] | None = None
    similarity: Literal["lncc", "mse", "mi", "mind"] | None = None
    labels_to_score: tuple[int, ...] | None = None
    models: tuple[Path, ...] = ()
    description: str


def bundled_pairs() -> tuple[Pair, ...]:
    """The pairs in the package: hippocampus (two), cardiac, lung, spine, vessels (2-D)."""
    root = Path(str(resources.files("warpwright.data") / "pairs"))
    return (
        _hippocampus(root / "hippocampus", "130", "132"),
        _hippocampus(root / "hippocampus", "133", "136"),
        Pair(
            name="cardiac",
            fixed=root / "cardiac/es.nii.gz",
            moving=root / "cardiac/ed.nii.gz",
            fixed_labels=root / "cardiac/es_labels.nii.gz",
            moving_labels=root / "cardiac/ed_labels.nii.gz",
            labels_to_score=(1,),
            description="Cardiac MR of one patient, end-diastole onto end-systole; label 1 is the left ventricle's blood pool.",
        ),
        Pair(
            name="lung",
            fixed=root / "lung/baseline.nii.gz",
            moving=root / "lung/followup.nii.gz",
            fixed_points=root / "lung/baseline_points.csv",
            moving_points=root / "lung/followup_points.csv",
            points_space="lps",
            description="Lung CT of one patient at two visits, in HU, with 26 landmarks.",
        ),
        Pair(
            name="spine",
            fixed=root / "spine/t1.nii.gz",
            moving=root / "spine/t2.nii.gz",
            fixed_labels=root / "spine/t1_cord.nii.gz",
            moving_labels=root / "spine/t2_cord.nii.gz",
            similarity="mi",
            labels_to_score=(1,),
            description="Neck MR of one person, T2 onto T1, voxel axes in different orders; label 1 is the spinal cord.",
        ),
        Pair(
            name="vessels",
            fixed=root / "vessels/fixed.png",
            moving=root / "vessels/moving.png",
            fixed_labels=root / "vessels/fixed_vessels.png",
            moving_labels=root / "vessels/moving_vessels.png",
            labels_to_score=(255,),
            description="Retina in 2-D, a photograph and a synthetic warp of it; label 255 is the vessels.",
        ),
    )


def _hippocampus(folder: Path, fixed: str, moving: str) -> Pair:
    return Pair(
        name=f"hippocampus-{fixed}-{moving}",
        fixed=folder / f"image_{fixed}.nii.gz",
        moving=folder / f"image_{moving}.nii.gz",
        fixed_labels=folder / f"labels_{fixed}.nii.gz",
        moving_labels=folder / f"labels_{moving}.nii.gz",
        labels_to_score=(1, 2),
        models=tuple(folder.parents[1] / "models" / name for name in ("hippocampus", "hippocampus-features")),
        description="Hippocampus MR of two people; label 1 is the anterior part, 2 the posterior part.",
    )
