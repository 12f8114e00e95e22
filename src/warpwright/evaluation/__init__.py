"""How a result is judged: overlap, surface distance, landmarks, folding, inverse consistency; and what a cohort says.

Measures are functions of tensors or arrays to plain floats; what is not defined is NaN. `learn2reg` holds that challenge's own
definitions, `fire` the protocol of the FIRE retinal pairs.
"""

from warpwright.evaluation import fire, learn2reg
from warpwright.evaluation.contours import HALF, PUBLISHED, contour_figures
from warpwright.evaluation.folding import folding, inverse_consistency
from warpwright.evaluation.landmarks import summarise, target_registration_error
from warpwright.evaluation.overlap import dice, jaccard, mean_over_labels, vanished_labels
from warpwright.evaluation.statistics import bootstrap_interval, paired_t_test, summary, wilcoxon
from warpwright.evaluation.surface import SurfaceMethod, assd, hausdorff, hd95, surface_distances, surface_figures

__all__ = [
    "HALF",
    "PUBLISHED",
    "SurfaceMethod",
    "assd",
    "bootstrap_interval",
    "contour_figures",
    "dice",
    "fire",
    "folding",
    "hausdorff",
    "hd95",
    "inverse_consistency",
    "jaccard",
    "learn2reg",
    "mean_over_labels",
    "paired_t_test",
    "summarise",
    "summary",
    "surface_distances",
    "surface_figures",
    "target_registration_error",
    "vanished_labels",
    "wilcoxon",
]
