"""Warpwright: deformable medical image registration that learns, optimises, or both.

The public names are imported when they are first used, so that `import warpwright` is quick and loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpwright.errors import BadInput, Failed, WarpwrightError
    from warpwright.geometry import Grid, Image
    from warpwright.io import (
        ImageLike,
        Points,
        read_image,
        read_labels,
        read_points,
        read_transform,
        to_nibabel,
        to_numpy,
        to_simpleitk,
        write_image,
        write_points,
        write_transform,
    )
    from warpwright.methods import Progress, Registration, Settings, preset, register_pair
    from warpwright.product.model_folder import ModelFolder, read_model
    from warpwright.product.register import register
    from warpwright.product.report import write_report
    from warpwright.product.result import RegistrationResult
    from warpwright.transforms import (
        Affine,
        BSplineField,
        DisplacementField,
        Transform,
        VelocityField,
        resample,
    )

__all__ = [
    "Affine",
    "BSplineField",
    "BadInput",
    "DisplacementField",
    "Failed",
    "Grid",
    "Image",
    "ImageLike",
    "ModelFolder",
    "Points",
    "Progress",
    "Registration",
    "RegistrationResult",
    "Settings",
    "Transform",
    "VelocityField",
    "WarpwrightError",
    "preset",
    "read_image",
    "read_labels",
    "read_model",
    "read_points",
    "read_transform",
    "register",
    "register_pair",
    "resample",
    "to_nibabel",
    "to_numpy",
    "to_simpleitk",
    "write_image",
    "write_points",
    "write_report",
    "write_transform",
]

_HOMES = {
    "errors": ("BadInput", "Failed", "WarpwrightError"),
    "geometry": ("Grid", "Image"),
    "io": (
        "ImageLike",
        "Points",
        "read_image",
        "read_labels",
        "read_points",
        "read_transform",
        "to_nibabel",
        "to_numpy",
        "to_simpleitk",
        "write_image",
        "write_points",
        "write_transform",
    ),
    "methods": ("Progress", "Registration", "Settings", "preset", "register_pair"),
    "product.model_folder": ("ModelFolder", "read_model"),
    "product.register": ("register",),
    "product.report": ("write_report",),
    "product.result": ("RegistrationResult",),
    "transforms": ("Affine", "BSplineField", "DisplacementField", "Transform", "VelocityField", "resample"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
