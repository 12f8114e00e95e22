"""Compiled loops over images: numba on the CPU, each with a plain torch twin in the room that calls it.

Whoever has a twin asks `usable` and takes the kernel if it is; kernels know no gradient (see `operator`). Modules in here
other than `layout`, `operator`, `reduction` and `slabs` import numba, which takes a moment, so they are imported where
they are called.
"""

from warpwright.kernels.operator import as_operator, by_twin, plainly, save_arguments, usable, vector_jacobian
from warpwright.kernels.reduction import total
from warpwright.kernels.slabs import threads_to_kernels

__all__ = [
    "as_operator",
    "by_twin",
    "plainly",
    "save_arguments",
    "threads_to_kernels",
    "total",
    "usable",
    "vector_jacobian",
]
