"""The budget: which widths a unit may have so that the finished plan meets the budget."""

from prune_env.budget.budget import Budget

__all__ = ["Budget"]
