"""Make the small real pairs that ship with the package, from a folder of public sets.

    python tools/make_bundled_data.py --data FOLDER [--output src/warpwright/data/pairs]

FOLDER holds the sets as the README.md of each pair names them. The same sources give the same bytes (gzip without time
or name, one seed for the synthetic retina); another zlib or libpng may pack the same values into other bytes. The
README.md beside each pair, with source and licence, is written by hand and left alone.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from warpwright.geometry import Grid

HIPPOCAMPI = ("130", "132", "133", "136")  # the 62nd to 65th by name: the first 61 are kept for measuring and tuning
PATIENT = "SC-HF-I-1"
RETINA = "Image_01L"
AIR = -1024  # HU; the scanner's padding (-2048) is set to it before averaging
ROTATION = 8.0  # degrees, about the middle of the retina
AMPLITUDE = 8.0  # standard deviation of the synthetic displacement, voxels
SMOOTHNESS = 45.0  # standard deviation of the Gaussian that makes it smooth, voxels
NOISE = 4.0  # standard deviation, grey levels


def main() -> None:
    """Read the command line, make every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "src/warpwright/data/pairs")
    arguments = parser.parse_args()
    makers = {"hippocampus": hippocampus, "cardiac": cardiac, "lung": lung, "spine": spine, "vessels": vessels}
    for name, maker in makers.items():
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        maker(arguments.data, folder)


def hippocampus(data: Path, output: Path) -> None:
    """Four volumes with labels, intensities as uint8."""
    source = data / "hippocampus_msd"
    for name in HIPPOCAMPI:
        image, affine = read(source / "images" / f"hippocampus_{name}.nii.gz")
        labels, _ = read(source / "labels" / f"hippocampus_{name}.nii.gz")
        write(output / f"image_{name}.nii.gz", to_bytes(image), affine)
        write(output / f"labels_{name}.nii.gz", labels.astype(np.uint8), affine)


def cardiac(data: Path, output: Path) -> None:
    """End-diastole and end-systole with the blood pool of the left ventricle (label 1) only."""
    source = data / "cardiac_sunnybrook" / PATIENT
    for phase in ("ed", "es"):
        image, affine = read(source / f"{phase}.nii.gz")
        labels, _ = read(source / f"{phase}_label.nii.gz")
        write(output / f"{phase}.nii.gz", image.astype(np.int16), affine)
        write(output / f"{phase}_labels.nii.gz", (labels == 1).astype(np.uint8), affine)


def lung(data: Path, output: Path) -> None:
    """Two CTs at half the in-plane resolution, and their landmarks in two files."""
    source = data / "lung_ct_elastix"
    for name in ("fixed_baseline", "moving_followup"):
        image, affine = read(source / f"{name}.nii.gz")
        half, grid = block_mean(np.maximum(image, AIR), Grid(image.shape, affine), (2, 2, 1))
        write(output / f"{name.split('_')[1]}.nii.gz", np.rint(half).astype(np.int16), grid.affine)
    with (source / "landmarks_lps_mm.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for side, name in (("fixed", "baseline"), ("moving", "followup")):
        lines = ["id,x,y,z", *(",".join([row["id"], *(row[f"{side}_{axis}"] for axis in "xyz")]) for row in rows)]
        (output / f"{name}_points.csv").write_text("\n".join(lines) + "\n", newline="\n")


def spine(data: Path, output: Path) -> None:
    """T1 and T2 of one subject with the spinal cord."""
    source = data / "spine_sct"
    for name, short in (("t1w", "t1"), ("t2", "t2")):
        image, affine = read(source / f"{name}.nii.gz")
        cord, _ = read(source / f"{name}_cord.nii.gz")
        write(output / f"{short}.nii.gz", image.astype(np.int16), affine)
        write(output / f"{short}_cord.nii.gz", cord.astype(np.uint8), affine)


def vessels(data: Path, output: Path) -> None:
    """The green channel of a fundus photograph and its vessels at half resolution, and a warped copy of both."""
    source = data / "retina_chase"
    green = np.asarray(Picture.open(source / f"{RETINA}.jpg"))[:, :, 1].astype(np.float64)
    drawn = np.asarray(Picture.open(source / f"{RETINA}_1stHO.png")) > 127
    image, grid = block_mean(green, Grid.regular(green.shape), (2, 2))
    share, _ = block_mean(drawn.astype(np.float64), Grid.regular(green.shape), (2, 2))
    generator = np.random.default_rng(1)
    points = synthetic_points(grid.shape, generator)
    moved, moved_share = (ndimage.map_coordinates(a, points, order=1, mode="nearest") for a in (image, share))
    moved = moved + NOISE * generator.standard_normal(moved.shape)
    for name, grey, part in (("fixed", image, share), ("moving", moved, moved_share)):
        write_picture(output / f"{name}.png", np.rint(grey.clip(0, 255)).astype(np.uint8))
        write_picture(output / f"{name}_vessels.png", np.where(part >= 0.5, 255, 0).astype(np.uint8))


def synthetic_points(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A rotation about the middle after a smooth random displacement: (D, *shape) voxels, where each new voxel looks."""
    centre = (np.array(shape) - 1) / 2
    noise = [ndimage.gaussian_filter(generator.standard_normal(shape), SMOOTHNESS, mode="reflect") for _ in shape]
    displacement = np.stack([AMPLITUDE * field / field.std() for field in noise])
    offset = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")) + displacement - centre[:, None, None]
    cosine, sine = np.cos(np.deg2rad(ROTATION)), np.sin(np.deg2rad(ROTATION))
    return np.einsum("ij,jxy->ixy", np.array([[cosine, -sine], [sine, cosine]]), offset) + centre[:, None, None]


def block_mean(values: np.ndarray, grid: Grid, factors: tuple[int, ...]) -> tuple[np.ndarray, Grid]:
    """Means over whole blocks of voxels (a partial last block is dropped) and the grid of the blocks' centres."""
    whole = tuple(n // k * k for n, k in zip(values.shape, factors, strict=True))
    values = values[tuple(slice(n) for n in whole)].astype(np.float64)
    for axis, k in enumerate(factors):
        split = (*values.shape[:axis], values.shape[axis] // k, k, *values.shape[axis + 1 :])
        values = values.reshape(split).mean(axis + 1)
    return values, grid.crop((0,) * len(whole), whole).downsample(factors)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Integers that fit are kept; anything else is scaled linearly from [min, max] to [0, 255]."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return np.rint((image - low) * (255 / (high - low))).astype(np.uint8)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stored values and affine of a NIfTI file."""
    volume = nib.load(path)
    return np.asanyarray(volume.dataobj), volume.affine


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """A NIfTI file with both forms equal (code 1, scanner), millimetres, no scaling, packed without time or name."""
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    image.set_sform(image.header.get_qform(), 1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def write_picture(path: Path, values: np.ndarray) -> None:
    """An 8-bit greyscale PNG."""
    packed = io.BytesIO()
    Picture.fromarray(values).save(packed, "png", optimize=True)
    path.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
