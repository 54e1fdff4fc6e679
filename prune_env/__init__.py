"""Prune CNNs with a learned policy: layer walk, exact costs, surgery, plans and a Gymnasium environment."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from prune_env.api import prune
    from prune_env.config import RunConfig
    from prune_env.env import PruningEnv
    from prune_env.plan import PruningPlan
    from prune_env.walk import LayerWalk

__all__ = ["LayerWalk", "PruningEnv", "PruningPlan", "RunConfig", "prune"]

_PLACES = {"LayerWalk": "walk", "PruningEnv": "env", "PruningPlan": "plan", "RunConfig": "config", "prune": "api"}

gymnasium.register(id="prune_env/Pruning-v0", entry_point="prune_env.env:PruningEnv")


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds, which `prune-env --help` need not wait for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value
