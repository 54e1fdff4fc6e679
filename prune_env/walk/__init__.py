"""The layer walk: what can be cut in a network, in forward order, with its exact costs."""

from prune_env.walk.layer_walk import LayerWalk, Scores, best_channels
from prune_env.walk.unit import Member, Unit

__all__ = ["LayerWalk", "Member", "Scores", "Unit", "best_channels"]
