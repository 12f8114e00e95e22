"""elastix (itk-elastix): its default parameter maps, translation, affine, B-spline.

Its own setting `number_of_threads` crashes with more than one metric (InsightSoftwareConsortium/ITKElastix issue 160); the
environment variable of ITK says the same.
"""

from pathlib import Path

import itk
from base import Base


class Tool(Base):
    """As `Base` says."""

    package = "itk-elastix"
    settings = "default parameter maps translation, affine, bspline (10 mm); it writes its transforms within the in-memory time"

    def load(self, fixed, moving):
        """Both images."""
        return itk.imread(fixed, itk.F), itk.imread(moving, itk.F)

    def register(self, images, folder):
        """The moved image; the transform is written as a composite."""
        parameters = itk.ParameterObject.New()
        for name in ("translation", "affine", "bspline"):
            chosen = parameters.GetDefaultParameterMap(name)
            chosen["ITKTransformOutputFileNameExtension"] = ["h5"]
            chosen["WriteITKCompositeTransform"] = ["true"]
            parameters.AddParameterMap(chosen)
        moved, _ = itk.elastix_registration_method(
            images[0],
            images[1],
            parameter_object=parameters,
            output_directory=str(folder),
            log_to_console=False,
        )
        return moved

    def save(self, result, images, folder):
        """The moved image; the transforms are there."""
        itk.imwrite(result, str(Path(folder) / "moved.nii.gz"))
