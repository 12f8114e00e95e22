"""Published protocols as settings of a training: `preset = "NAME"` in a TOML file, whose own tables are laid over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from warpwright.config import KIND, merged, to_mapping
from warpwright.errors import BadInput, did_you_mean
from warpwright.methods import TwoStep, stage_1
from warpwright.networks import TallUNet

__all__ = ["PRESETS", "with_preset"]

PRESET = "preset"


def gradicon(dim: int) -> dict[str, Any]:
    """GradICON, stage 1: three networks at a quarter, half and full resolution, one weight for all anatomies.

    The published sum of both directions is a mean here, with half the weight (0.75 for 1.5), which has the same optimum. The
    code also permutes axes, which needs cubic images, and shifts by 0.025 of the extent; here are the paper's flips, small
    affine maps, and shifts of 4 mm.

    Reference: Tian et al., GradICON, CVPR 2023, sections 4 and 5, and its code for the augmentation.
    """
    return {
        "steps": 50000,
        "batch": 4,
        "model": {
            "network": {KIND: "twostep", **to_mapping(stage_1(TallUNet()))},
            "layers": [],
            "loss": [
                {"kind": "images", "similarity": {"kind": "localcorrelation", "sigma": 5.0}},
                {"kind": "gradientinverseconsistency", "weight": 0.75, "every": 1 if dim == 2 else 2},
            ],
            "directions": "both",
        },
        "scheme": {"optimiser": {"kind": "adam", "rate": 5e-5}, "schedule": {"kind": "constant"}},
        "augmentation": {"flips": [0.5] * dim, "rotation": 2.9, "scaling": 0.05, "shear": 0.05, "translation": 4.0},
    }


def gradicon_stage_2(dim: int) -> dict[str, Any]:
    """GradICON, stage 2: a fourth network behind stage 1, whose model `weights` names (equation 12)."""
    behind = TwoStep(first=stage_1(TallUNet()), second=TallUNet())
    return merged(gradicon(dim), {"model": {"network": {KIND: "twostep", **to_mapping(behind)}}})


PRESETS: Mapping[str, Callable[[int], dict[str, Any]]] = {"gradicon": gradicon, "gradicon-stage-2": gradicon_stage_2}


def with_preset(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with those of the preset that they name under them.

    Args:
        settings: tables of a TOML file.
        where: what a message calls them.

    Raises:
        BadInput: there is no such preset, or it needs weights that are not named.
    """
    rest = {key: value for key, value in settings.items() if key != PRESET}
    name = settings.get(PRESET)
    if name is None:
        return rest
    if not isinstance(name, str) or name not in PRESETS:
        raise BadInput(f"{where}.{PRESET}: there is no {name!r}{did_you_mean(str(name), tuple(PRESETS))}")
    model = rest.get("model")
    dim = model.get("dim", 3) if isinstance(model, Mapping) else 3
    if name == "gradicon-stage-2" and "weights" not in rest:
        raise BadInput(f'{where}: the preset {name} begins with a trained stage 1, expected weights = "its model folder"')
    return merged(PRESETS[name](dim if type(dim) is int and dim in (2, 3) else 3), rest)
