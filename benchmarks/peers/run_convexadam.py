"""convexAdam on the CPU: MIND, on the moving image put onto the fixed grid centre to centre, as it wants one grid."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from base import Base
from convexAdam.convex_adam_MIND import convex_adam_pt


class Tool(Base):
    """As `Base` says."""

    package = "convexAdam"
    settings = "on the CPU: `convex_adam_pt` with its defaults behind a shift of centre to centre; it has no affine of its own"

    def prepare(self):
        """The threads of torch."""
        torch.set_num_threads(self.threads)

    def load(self, fixed, moving):
        """Both images."""
        return sitk.ReadImage(fixed, sitk.sitkFloat32), sitk.ReadImage(moving, sitk.sitkFloat32)

    def register(self, images, folder):
        """The shift (LPS mm), and the displacement in fixed voxels, in the order of the array."""
        fixed, moving = images
        middles = [image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]) for image in images]
        shift = np.subtract(middles[1], middles[0])
        air = float(sitk.GetArrayViewFromImage(moving).min())
        start = sitk.Resample(moving, fixed, sitk.TranslationTransform(3, shift.tolist()), sitk.sitkLinear, air)
        return shift, convex_adam_pt(fixed, start, device=torch.device("cpu"), dtype=torch.float32)

    def save(self, result, images, folder):
        """The whole map as one field, and the moved image."""
        shift, voxels = result
        fixed, moving = images
        to_world = np.reshape(fixed.GetDirection(), (3, 3)) @ np.diag(fixed.GetSpacing())
        field = sitk.GetImageFromArray(voxels[..., ::-1] @ to_world.T + shift, isVector=True)
        field.CopyInformation(fixed)
        sitk.WriteImage(sitk.Cast(field, sitk.sitkVectorFloat32), str(Path(folder) / "warp.nii.gz"))
        whole = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
        moved = sitk.Resample(moving, fixed, whole, sitk.sitkLinear, float(sitk.GetArrayViewFromImage(moving).min()))
        sitk.WriteImage(moved, str(Path(folder) / "moved.nii.gz"))
