"""The environment: an episode over the layer walk that decides one unit per step."""

from prune_env.env.pruning_env import PruningEnv

__all__ = ["PruningEnv"]
