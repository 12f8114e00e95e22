"""Numerics that know no image: problem, algorithm and gradient rule are three separate arguments."""

from warpwright.solver.adjoint import Adjoint, AtRest, Krylov, OneStep, Truncated, Unroll
from warpwright.solver.algorithms import LBFGS, Adam, FirstOrder, GaussNewton, GradientDescent, Solver
from warpwright.solver.algorithms.base import Precondition, Retract, add
from warpwright.solver.minimise import minimise
from warpwright.solver.objective import CurvedObjective, Function, Objective
from warpwright.solver.solution import Solution, Status

__all__ = [
    "LBFGS",
    "Adam",
    "Adjoint",
    "AtRest",
    "CurvedObjective",
    "FirstOrder",
    "Function",
    "GaussNewton",
    "GradientDescent",
    "Krylov",
    "Objective",
    "OneStep",
    "Precondition",
    "Retract",
    "Solution",
    "Solver",
    "Status",
    "Truncated",
    "Unroll",
    "add",
    "minimise",
]
