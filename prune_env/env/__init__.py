"""The environment: the layer walk as decisions, one unit a step."""

from prune_env.env.pruning_env import PruningEnv

__all__ = ["PruningEnv"]
