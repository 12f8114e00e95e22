"""DIPY: affine by mutual information, then SyN by cross-correlation."""

from pathlib import Path

import nibabel as nib
import numpy as np
from base import Base
from dipy.align import affine_registration, syn_registration

RAS_VECTORS = 1006
SMALLEST = 10  # voxels along an axis that the windows of its CC need


class Tool(Base):
    """As `Base` says."""

    package = "dipy"
    settings = "`affine_registration` (to affine), then `syn_registration`, defaults (CC; 10 10 5, small images 10 5)"

    def load(self, fixed, moving):
        """Both images: array and matrix."""
        return [(np.asarray(image.dataobj, dtype=np.float32), image.affine) for image in map(nib.load, (fixed, moving))]

    def register(self, images, folder):
        """The affine, the moved image, and the map, held as an inverse: its backward field leads to the moving image."""
        (fixed, here), (moving, there) = images
        places = {"static_affine": here, "moving_affine": there}
        stages = ["center_of_mass", "translation", "rigid", "affine"]
        _, affine = affine_registration(moving, fixed, pipeline=stages, **places)
        levels = [steps for k, steps in enumerate((10, 10, 5)[::-1]) if min(fixed.shape) // 2**k >= SMALLEST][::-1]
        moved, mapping = syn_registration(moving, fixed, prealign=affine, level_iters=levels, **places)
        return affine, moved, mapping

    def save(self, result, images, folder):
        """The field (RAS mm, before the affine), the affine, and the moved image."""
        affine, moved, mapping = result
        matrix = images[0][1]
        np.savetxt(Path(folder) / "affine.txt", affine, fmt="%.17g")
        field = nib.Nifti1Image(np.asarray(mapping.backward, dtype=np.float32)[:, :, :, None], matrix)
        field.header.set_intent(RAS_VECTORS)
        for image, name in ((field, "warp"), (nib.Nifti1Image(np.asarray(moved, dtype=np.float32), matrix), "moved")):
            image.set_qform(matrix, 1)
            image.set_sform(matrix, 1)
            nib.save(image, Path(folder) / f"{name}.nii.gz")
