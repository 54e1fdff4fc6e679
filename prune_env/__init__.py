"""Prune CNNs with a learned policy: layer walk, exact costs, surgery, plans and a Gymnasium environment."""

import gymnasium

from prune_env.config import RunConfig
from prune_env.env import PruningEnv
from prune_env.plan import PruningPlan
from prune_env.walk import LayerWalk

__all__ = ["LayerWalk", "PruningEnv", "PruningPlan", "RunConfig"]

gymnasium.register(id="prune_env/Pruning-v0", entry_point="prune_env.env:PruningEnv")
