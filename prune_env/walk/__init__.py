"""The layer walk: the units of a network in forward order, with exact costs."""

from prune_env.walk.layer_walk import LayerWalk, Scores, best_channels
from prune_env.walk.unit import Member, Unit

__all__ = ["LayerWalk", "Member", "Scores", "Unit", "best_channels"]
