"""The few settings that tell one run from another, and what they gave, for TensorBoard's table of hyperparameters."""

from typing import Any

from torch.utils.tensorboard.summary import hparams

from prune_env.common.event_log import EventLog
from prune_env.config import RunConfig
from prune_env.runs.finishing import FinishedSearch

ALWAYS = ("model.name", "agent.name", "budget.metric", "budget.keep", "criterion.name", "seed")
"""Settings that are shown although they may have their default values."""

_NO_HYPERPARAMETERS = ("run", "execution", "data.path", "model.weights", "env.protect")
"""Settings that are paths, mappings with free keys, or measured for the machine."""


def hyperparameters(config: RunConfig) -> dict[str, float | str]:
    """The settings that differ from the defaults, and those of `ALWAYS`, by dotted key."""
    given = _flat(config.resolved())
    least = {
        "model": {"name": config.model.name},
        "data": {"name": config.data.name},
        "granularity": {"name": config.granularity.name},
    }
    usual = _flat(RunConfig.from_mapping(least).resolved())
    always = [*ALWAYS, *(["granularity.name"] if config.granularity.name != "channel" else [])]
    return {key: value for key, value in given.items() if key in always or usual.get(key) != value}


def log_result(finished: FinishedSearch) -> None:
    """Adds the hyperparameters and the quality on the test set to the TensorBoard log of a finished search."""
    search, row = finished.search, finished.rows[-1]
    quality, step = search.problem.quality_name, finished.summary["evaluations"] - 1
    results = {f"test/{quality}": row.test[quality]} if row.test else {}
    shown = {"rollout/best_reward": finished.result.best.reward, **results}
    with EventLog(search.run.tensorboard) as log:
        for summary in hparams(hyperparameters(search.settings), shown):
            log.add_summary(summary, step)
        log.add_scalars(results, step)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, float | str]:
    """Settings by dotted key; lists become text, and nulls are left out."""
    found: dict[str, float | str] = {}
    for name, value in settings.items():
        key = prefix + name
        if key in _NO_HYPERPARAMETERS or value is None:
            continue
        if isinstance(value, dict):
            found |= _flat(value, key + ".")
        else:
            # hparams() would write a bool as a number.
            found[key] = value if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
