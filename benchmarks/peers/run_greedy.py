"""greedy (picsl_greedy): affine, then deformable, on SimpleITK images in memory."""

import io
from pathlib import Path

import SimpleITK as sitk  # noqa: N813
from base import Base
from picsl_greedy import Greedy3D

METRIC = "-m NCC 2x2x2 -n 100x50x10"


class Tool(Base):
    """As `Base` says."""

    package = "picsl_greedy"
    settings = f"affine `-a -dof 12 -ia-image-centers {METRIC}`, then deformable `{METRIC}`"

    def load(self, fixed, moving):
        """Both images."""
        return sitk.ReadImage(fixed, sitk.sitkFloat32), sitk.ReadImage(moving, sitk.sitkFloat32)

    def _do(self, command, **names):
        greedy = Greedy3D()
        log = io.StringIO()
        greedy.execute(f"-d 3 -threads {self.threads} {command}", out=log, err=log, **names)
        return greedy

    def register(self, images, folder):
        """The field, whose vectors come before the affine; the affine is a small file, as the tool wants it."""
        pair = dict(zip("FM", images, strict=True))
        self._do(f"-a -dof 12 -ia-image-centers {METRIC} -i F M -o {folder}/affine.txt", **pair)
        return self._do(f"{METRIC} -i F M -it {folder}/affine.txt -o W", **pair, W=None)["W"]

    def save(self, result, images, folder):
        """The field beside the affine, and the moved image."""
        warp = str(Path(folder) / "warp.nii.gz")
        sitk.WriteImage(sitk.Cast(result, sitk.sitkVectorFloat32), warp)
        pair = dict(zip("FM", images, strict=True))
        self._do(f"-rf F -rm M {folder}/moved.nii.gz -r {warp} {folder}/affine.txt", **pair)
