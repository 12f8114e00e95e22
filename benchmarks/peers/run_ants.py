"""ANTs (antspyx): SyN with its defaults."""

from pathlib import Path

import ants
from base import Base


class Tool(Base):
    """As `Base` says."""

    package = "antspyx"
    settings = '`ants.registration(type_of_transform="SyN")`, its defaults; it writes its transforms within the in-memory time'

    def load(self, fixed, moving):
        """Both images."""
        return ants.image_read(fixed), ants.image_read(moving)

    def register(self, images, folder):
        """Affine, warp and inverse warp, as files, and both images moved."""
        return ants.registration(images[0], images[1], type_of_transform="SyN", outprefix=str(Path(folder) / "ants_"))

    def save(self, result, images, folder):
        """The moved image; the transforms are there."""
        ants.image_write(result["warpedmovout"], str(Path(folder) / "moved.nii.gz"))
