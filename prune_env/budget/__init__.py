"""The budget: what a width may be so that the finished plan stays within it."""

from prune_env.budget.budget import Budget

__all__ = ["Budget"]
