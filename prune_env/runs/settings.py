"""Reads the settings of a run from a file or from the run, and compares settings."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust, code_keys
from prune_env.data.preprocessing import KEYS as PREPROCESSING
from prune_env.runs.run_directory import RunDirectory


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


def settings_to_replay_on(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads settings as `read_settings`; those of a run that trained its network sparsely name the sparse weights."""
    settings, run = read_settings(path, overrides), RunDirectory(path.parent)
    if not (settings.sparsify.epochs and path == run.config):
        return settings
    return settings_of(run, overrides, Trust.of(settings))


def use_threads(config: RunConfig) -> None:
    """Sets torch's number of threads to ``execution.threads``; null changes nothing."""
    if config.execution.threads is not None:
        torch.set_num_threads(config.execution.threads)


def for_workers(config: RunConfig) -> RunConfig:
    """The settings with one thread in each process, if several measure and ``execution.threads`` is null."""
    if (config.search.workers == 1 and config.run.address is None) or config.execution.threads is not None:
        return config
    return config.model_copy(update={"execution": config.execution.model_copy(update={"threads": 1})})


def alone(config: RunConfig) -> RunConfig:
    """The settings of a search that measures its plans in its own process."""
    run = config.run.model_copy(update={"address": None})
    return config.model_copy(update={"run": run, "search": config.search.model_copy(update={"workers": 1})})


def settings_of(run: RunDirectory, overrides: Sequence[str] = (), trust: Trust = NOTHING) -> RunConfig:
    """Reads the settings of a started run, with the weights and the policy that its search started from.

    Overrides replace them. Where the run trained the weights, the settings name them and ask for no further sparse
    training.

    Args:
        run: The run.
        overrides: As `RunDirectory.settings`.
        trust: As `RunDirectory.settings`.
    """
    settings = run.settings(overrides, trust)
    use_threads(settings)
    if (policy := run.first_policy) is not None:
        settings = settings.model_copy(update={"agent": settings.agent.model_copy(update={"policy": str(policy)})})
    if not run.dense_weights.is_file():
        return settings
    keys = code_keys(RunConfig)
    naming = [override for override in overrides if override.partition("=")[0].strip() in keys]
    trained = RunDirectory(run.dense_weights.parent).settings(naming, trust)
    if settings.model.weights is None or (trained.sparsify.epochs and settings.model.weights == trained.model.weights):
        model = settings.model.model_copy(update={"weights": str(run.dense_weights)})
        settings = settings.model_copy(update={"model": model})
    sparsify = settings.sparsify.model_copy(update={"epochs": 0})
    return settings.model_copy(update={"sparsify": sparsify})


FOUND = (("env", "round_to"), *(("data", key) for key in PREPROCESSING))
"""Section and key of settings that a run finds where they are null, and records."""


def differing_settings(started: RunConfig, wanted: RunConfig) -> list[str]:
    """Names of the sections in which two settings differ, except those about the folder and about measurements."""
    theirs, ours = started.resolved(), wanted.resolved()
    for section, key in FOUND:
        if ours[section][key] is None:
            ours[section][key] = theirs[section][key]
    for settings in (theirs, ours):
        # The result does not depend on the number of workers.
        del settings["search"]["workers"]
    return [key for key in ours if key not in ("execution", "run") and ours[key] != theirs[key]]
