"""Reads the settings of a run from a file or from the run, and compares settings."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prune_env.config import RunConfig
from prune_env.runs.directory import RunDirectory


def read_settings(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads settings and sets torch's number of threads from them.

    Args:
        path: A YAML file.
        overrides: Settings that replace those of the file: ``key.path=value``.

    Raises:
        ConfigError: If the file cannot be read, or a setting is invalid.
    """
    config = RunConfig.load(path, overrides)
    use_threads(config)
    return config


def use_threads(config: RunConfig) -> None:
    """Sets torch's number of threads to ``execution.threads``; null changes nothing."""
    if config.execution.threads is not None:
        torch.set_num_threads(config.execution.threads)


def settings_of(run: RunDirectory, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads the settings of a started run, with the dense weights of the run; overrides replace both."""
    settings = read_settings(run.config, overrides)
    if settings.model.weights is None and run.dense_weights.is_file():
        model = settings.model.model_copy(update={"weights": str(run.dense_weights)})
        settings = settings.model_copy(update={"model": model})
    return settings


def differing_settings(started: RunConfig, wanted: RunConfig) -> list[str]:
    """Names of the sections in which two settings differ, except those about the folder and about measurements."""
    if wanted.env.round_to is None:
        env = wanted.env.model_copy(update={"round_to": started.env.round_to})
        wanted = wanted.model_copy(update={"env": env})
    theirs, ours = started.resolved(), wanted.resolved()
    return [key for key in ours if key not in ("execution", "run") and ours[key] != theirs[key]]
