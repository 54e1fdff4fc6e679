"""The settings of a run: read from a file, read back from the run, compared with others."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prune_env.config import RunConfig
from prune_env.runs.directory import RunDirectory


def read_settings(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads settings, and makes torch use the threads that they ask for.

    Args:
        path: A YAML file.
        overrides: Settings that win over the file: ``key.path=value``.

    Raises:
        ConfigError: If the file cannot be read, or a setting is not allowed.
    """
    config = RunConfig.load(path, overrides)
    use_threads(config)
    return config


def use_threads(config: RunConfig) -> None:
    """Makes torch use the threads that the settings ask for, if they ask for any."""
    if config.execution.threads is not None:
        torch.set_num_threads(config.execution.threads)


def settings_of(run: RunDirectory, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a run that was started, with the dense weights that it had; overrides win over both."""
    settings = read_settings(run.config, overrides)
    if settings.model.weights is None and run.dense_weights.is_file():
        model = settings.model.model_copy(update={"weights": str(run.dense_weights)})
        settings = settings.model_copy(update={"model": model})
    return settings


def differing_settings(started: RunConfig, wanted: RunConfig) -> list[str]:
    """Sections in which a run's settings are not those wanted, but for where it is kept and what it has measured."""
    if wanted.env.round_to is None:
        env = wanted.env.model_copy(update={"round_to": started.env.round_to})
        wanted = wanted.model_copy(update={"env": env})
    theirs, ours = started.resolved(), wanted.resolved()
    return [key for key in ours if key not in ("execution", "run") and ours[key] != theirs[key]]
