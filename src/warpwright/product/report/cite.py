"""What to cite, from what a registration used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["references"]

SIMILARITIES = {
    "lncc": "Avants et al., Medical Image Analysis 12 (2008), doi 10.1016/j.media.2007.06.004: local cross-correlation",
    "mutualinformation": "Mattes et al., IEEE TMI 22 (2003), doi 10.1109/TMI.2003.809072: mutual information",
    "mind": "Heinrich et al., MICCAI 2013, doi 10.1007/978-3-642-40811-3_24: self-similarity descriptors",
}
TRANSFORMS = {
    "greedy": "Yushkevich et al., Alzheimer's and Dementia 12 (2016), doi 10.1016/j.jalz.2016.06.205: greedy compositive maps",
    "velocity": "Ashburner, NeuroImage 38 (2007), doi 10.1016/j.neuroimage.2007.07.007: stationary velocity fields",
    "bspline": "Rueckert et al., IEEE TMI 18 (1999), doi 10.1109/42.796284: free-form deformations",
}
MATCHING = "Zhang et al., SmoothProper, IPMI 2025, arXiv 2506.10813: smooth fields by message passing"
NETWORKS = {
    "VoxelMorph": "Balakrishnan et al., VoxelMorph, CVPR 2018, arXiv 1802.02604: the network",
    "VoxelMorphDiff": "Dalca et al., MICCAI 2018, arXiv 1805.04605: the network and its velocity",
    "TransMorph": "Chen et al., TransMorph, Medical Image Analysis 82 (2022), arXiv 2111.10480: the network",
    "LKUNet": "Jia et al., LKU-Net, MLMI 2022, arXiv 2208.04939: the network",
    "TallUNet": "Greer et al., ICON, ICCV 2021, arXiv 2105.04459: the network",
    "TwoStep": "Tian et al., GradICON, CVPR 2023, arXiv 2206.05897: networks in steps",
    "DIRNet": "de Vos et al., DIRNet, DLMIA 2017, arXiv 1704.06065: the network",
    "FCNSS": "Li and Fan, arXiv 1709.00799: the network",
    "DiffuseMorph": "Kim et al., DiffuseMorph, ECCV 2022, arXiv 2112.05149: the network",
    "Pyramid": MATCHING,
}
FEATURES = (
    "Jena et al., DIO, Medical Image Analysis 103 (2025), doi 10.1016/j.media.2025.103577: features that a solver registers"
)
SCORE = "Zhang et al., AdaCS, arXiv 2312.00837: adaptive correspondence scoring"


def references(record: Mapping[str, Any]) -> tuple[str, ...]:
    """One line for the program, and one for each method that `result.json` names.

    Args:
        record: what `result.json` holds.
    """
    return tuple(dict.fromkeys(_found(record)))


def _found(record: Mapping[str, Any]) -> Iterator[str]:
    settings, model = record["settings"], record.get("model") or {}
    yield f"The Warpwright developers, Warpwright, version {record['versions'].get('warpwright', 'unknown')}"
    features = "family" in model
    if model:
        digest = str(model.get("sha256"))[:12]
        yield f"The model in {model.get('path')}, as its card says ({model.get('network')}, SHA-256 {digest}…)"
    if features:
        yield FEATURES
    elif model.get("network") in NETWORKS:
        yield NETWORKS[model["network"]]
    if settings.get("matching"):
        yield MATCHING
    if not features and (not model or model.get("refine_field")):
        for known, key in ((SIMILARITIES, "similarity"), (TRANSFORMS, "deformable")):
            kind = (settings.get(key) or {}).get("kind")
            if kind in known:
                yield known[kind]
    if record["scores"].get("trust"):
        yield SCORE
