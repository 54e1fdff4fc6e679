"""Repairs: what makes up for a cut without training. Importing this package registers those of the library."""

from prune_env.repair import none
from prune_env.repair.least_squares import LeastSquares
from prune_env.repair.registry import REPAIRS, RepairContext, RepairMaker, register_repair

__all__ = ["REPAIRS", "LeastSquares", "RepairContext", "RepairMaker", "none", "register_repair"]
