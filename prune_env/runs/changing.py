"""What a resumed search may change of its settings, and how it becomes longer."""

from collections.abc import Sequence

from prune_env.common.errors import ConfigError, RunError
from prune_env.config import RunConfig
from prune_env.config.load import override_path
from prune_env.config.trust import NOTHING, Trust
from prune_env.runs.run_directory import RunDirectory
from prune_env.tasks import make_task, quality_of

CHANGEABLE = ("search.evaluations", "search.workers", "run.address", "data.path", "model.weights", "env.trace_seconds")
"""Settings that a resume may change: with them, the search proposes the same plans so far.

Weights and images are compared with those of the start, so that only their place may change.
"""


def changed_settings(run: RunDirectory, overrides: Sequence[str], trust: Trust = NOTHING) -> RunConfig | None:
    """Checks the overrides of a resume, and that something is left to do.

    Args:
        run: The run.
        overrides: As the user gave them: ``key.path=value``.
        trust: The code that the run's settings may name.

    Returns:
        The run's settings with the overrides; None without overrides.

    Raises:
        ConfigError: If the settings name code that is not trusted, or an override changes another setting or gives
            fewer evaluations than the run has.
        RunError: If the run is finished and is not extended.
    """
    for override in overrides:
        if (key := ".".join(override_path(override))) not in CHANGEABLE:
            raise ConfigError(
                f"{key}: a resumed run keeps its own setting, or its evaluations would not fit together. A resume may "
                f"change {', '.join(CHANGEABLE)}; to change {key}, start a new run."
            )
    started, given = run.settings(trust=trust), run.settings(overrides, trust)
    trials = run.evaluations(quality_of(make_task(started.task)).name)
    planned, wanted, done = started.search.evaluations, given.search.evaluations, max(0, len(trials) - 1)
    finished = run.summary.is_file()
    if finished and wanted == planned:
        raise RunError(
            f"The run in {str(run.root)!r} is finished: there is nothing left to do. Its result is in "
            f"{str(run.summary)!r}, and `prune-env report` writes its page; for a longer search, give "
            f"`prune-env train --resume {run.root} search.evaluations=N` with more than {planned}."
        )
    if wanted != planned and wanted < (least := done + 1 if finished else max(1, done)):
        raise ConfigError(f"search.evaluations: {wanted} given, but the run has {done}. Give {least} or more.")
    if not overrides:
        return None
    schedule = started.search.schedule if wanted == planned else started.search.scheduled
    return given.model_copy(update={"search": given.search.model_copy(update={"schedule": schedule})})
