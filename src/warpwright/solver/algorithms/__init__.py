"""Algorithms of `minimise`, one file each."""

from warpwright.solver.algorithms.adam import Adam
from warpwright.solver.algorithms.base import FirstOrder, Solver
from warpwright.solver.algorithms.gauss_newton import GaussNewton
from warpwright.solver.algorithms.gradient_descent import GradientDescent
from warpwright.solver.algorithms.lbfgs import LBFGS

__all__ = ["LBFGS", "Adam", "FirstOrder", "GaussNewton", "GradientDescent", "Solver"]
