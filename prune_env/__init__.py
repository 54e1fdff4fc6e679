"""Prune CNNs with a learned policy: layer walk, exact costs, surgery, plans and a Gymnasium environment."""

from typing import TYPE_CHECKING, Any

import gymnasium

from prune_env.config import RunConfig
from prune_env.env import PruningEnv
from prune_env.plan import PruningPlan
from prune_env.walk import LayerWalk

if TYPE_CHECKING:
    from prune_env.api import prune

__all__ = ["LayerWalk", "PruningEnv", "PruningPlan", "RunConfig", "prune"]

gymnasium.register(id="prune_env/Pruning-v0", entry_point="prune_env.env:PruningEnv")


def __getattr__(name: str) -> Any:
    """Imports `prune` on its first use: it needs the searches, the training and the report."""
    if name != "prune":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prune_env.api import prune

    return prune
