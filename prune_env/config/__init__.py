"""The settings of a run, typed, with units: one source for the command line, the YAML files and the docs."""

from prune_env.config.run_config import RunConfig, describe

__all__ = ["RunConfig", "describe"]
