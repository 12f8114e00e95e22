"""FireANTs on the CPU, plain torch: affine, then greedy."""

from pathlib import Path

import SimpleITK as sitk  # noqa: N813
import torch
from base import Base
from fireants.io import BatchedImages, Image
from fireants.registration.affine import AffineRegistration
from fireants.registration.greedy import GreedyRegistration


class Tool(Base):
    """As `Base` says."""

    package = "fireants"
    settings = (
        "on the CPU: affine from centre to centre (8 4 2 1, 200 100 50 20 steps), then greedy (4 2 1, 200 100 25 steps), CC of"
        " window 5"
    )

    def prepare(self):
        """The threads of torch."""
        torch.set_num_threads(self.threads)

    def load(self, fixed, moving):
        """Both images."""
        return [BatchedImages([Image.load_file(name, device="cpu")]) for name in (fixed, moving)]

    def register(self, images, folder):
        """The finished greedy registration, which holds the affine too."""
        affine = AffineRegistration(
            [8, 4, 2, 1], [200, 100, 50, 20], *images, optimizer="Adam", optimizer_lr=3e-3, cc_kernel_size=5, init_rigid="cof"
        )
        affine.optimize()
        greedy = GreedyRegistration(
            [4, 2, 1],
            [200, 100, 25],
            *images,
            cc_kernel_size=5,
            deformation_type="compositive",
            optimizer="adam",
            optimizer_lr=0.5,
            init_affine=affine.get_affine_matrix().detach(),
        )
        greedy.optimize()
        return greedy

    def save(self, result, images, folder):
        """The whole map as one field, and the moved image."""
        result.save_as_ants_transforms(str(Path(folder) / "warp.nii.gz"))
        with torch.no_grad():
            values = result.evaluate(*images)[0, 0]
        moved = sitk.GetImageFromArray(values.numpy())
        moved.CopyInformation(images[0].images[0].itk_image)
        sitk.WriteImage(moved, str(Path(folder) / "moved.nii.gz"))
