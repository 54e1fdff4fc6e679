"""A search into a run directory: what `prune-env train` and `prune-env compare` share."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from prune_env.budget.latency_model import LatencyModel
from prune_env.common.errors import RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.sections import ExecutionSection
from prune_env.criteria import save_scores
from prune_env.data import Splits
from prune_env.env.builders import NOTHING_REMEMBERED, Remembered, build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.models import save_weights
from prune_env.report.board import BoardListener
from prune_env.report.network_table import NetworkRow
from prune_env.runs.directory import RunDirectory
from prune_env.search.base import Search
from prune_env.search.episode import Episode, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import save_policy
from scripts.common import console, read_config

OnTrial = Callable[[Trial], None]
OnEpisode = Callable[[Episode], None]


def prepare(settings: RunConfig, run: RunDirectory | None = None) -> tuple[Splits, PruningProblem]:
    """Loads what the settings name and readies it for a search, telling of it on the console.

    Args:
        settings: The settings.
        run: A run with these settings, whose scores need not be found again.
    """
    splits = load_splits(settings)
    with console.status("training the dense network" if settings.model.weights is None else "loading") as status:
        model = load_model(
            settings,
            splits,
            lambda epoch, loss: status.update(
                f"training the dense network: epoch {epoch} of {settings.pretrain.epochs}, loss {loss:.3f}"
            ),
        )
        remembered = remembered_by(run, settings) if run is not None else NOTHING_REMEMBERED
        problem = build_problem(settings, splits, model, status.update, remembered)
    low, high = problem.granularity.reachable(problem.budget)
    console.print(
        f"{settings.model.name}: {len(problem.budget.units)} of {len(problem.walk.units)} units free, reachable "
        f"{low:.1%} to {high:.0%} of the dense {settings.budget.metric}, budget {settings.budget.keep:.0%}"
    )
    return splits, problem


def start_run(folder: Path, settings: RunConfig, splits: Splits, problem: PruningProblem) -> RunDirectory:
    """Makes the directory of a new run, with all that its search can be taken up from.

    Raises:
        RunError: If the folder exists or cannot be made.
    """
    assert problem.execution_choice is not None
    with RunDirectory.making(folder) as run:
        # With what was measured in it, the run's own config makes the same run again.
        env = settings.env.model_copy(update={"round_to": problem.budget.round_to})
        form = ExecutionSection(**asdict(problem.execution_choice.form))
        run.write_config(settings.model_copy(update={"form": form, "env": env}))
        if problem.latency is not None:
            run.write_json(run.latency, problem.latency.as_record())
        measured, file = problem.granularity.measurements(), problem.granularity.measurements_file
        if measured is not None and file is not None:
            run.write_json(run.root / file, measured)
        run.write_json(run.splits, splits.record())
        run.write_json(
            run.form, {**problem.execution_choice.as_record(), "weights": weights_digest(problem.walk.model)}
        )
        save_scores(settings.criterion.name, problem.context, problem.scores, run.scores)
        if problem.report is not None:
            run.write_json(run.sensitivity, problem.report.as_record())
        if settings.model.weights is None:
            save_weights(problem.walk.model, run.dense_weights)
    return RunDirectory.open(folder)


def remembered_by(run: RunDirectory, settings: RunConfig) -> Remembered:
    """What a run has measured, so that its search can be resumed without measuring it again."""
    latency = LatencyModel.from_record(run.read_json(run.latency)) if run.latency.is_file() else None
    return Remembered(run.scores, latency, measurements_of(run, settings))


def measurements_of(run: RunDirectory, settings: RunConfig) -> Any | None:
    """What the run's granularity has measured (`Granularity.measurements`); None where it measures nothing."""
    file = GRANULARITIES.find(settings.granularity.name).measurements_file
    return run.read_json(run.root / file) if file is not None and (run.root / file).is_file() else None


def settings_of(run: RunDirectory, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a run that was started, with the dense weights that it had; overrides win over both."""
    settings = read_config(run.config, overrides)
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
    return [key for key in ours if key not in ("form", "run") and ours[key] != theirs[key]]


def check_same_start(run: RunDirectory, splits: Splits, problem: PruningProblem) -> None:
    """Refuses to go on with other weights or other images.

    Raises:
        RunError: If either is not what the run was started with.
    """
    if run.read_json(run.form).get("weights") != weights_digest(problem.walk.model):
        raise RunError(
            f"{str(run.root)!r} was started with other weights than model.weights holds now. Give it the same "
            "weights, or start a new run."
        )
    if run.read_json(run.splits) != splits.record():
        raise RunError(
            f"{str(run.splits)!r} is not how the data are split now: data.path holds other data than when the run was "
            "started. Give it the same data, or start a new run."
        )


def search_into(
    run: RunDirectory, problem: PruningProblem, settings: RunConfig, on_trial: OnTrial, on_episode: OnEpisode
) -> tuple[Trial, SearchResult]:
    """Tries the uniform plan and runs the search, keeping every trial, the best plan and the policy in the run.

    What the run holds already is gone through again without measuring it: a search is a function of the outcomes that
    it sees, so these bring it to where it was.

    Args:
        run: The run.
        problem: A problem without trials.
        settings: The run's settings.
        on_trial: Hears of each trial.
        on_episode: Hears of each plan that the search proposed.

    Returns:
        The uniform plan's trial, and the result.

    Raises:
        RunError: If the run's evaluations are not what the search proposes, or another process is at the run.
    """
    written: Trial | None = None

    def record(trial: Trial) -> None:
        if not trial.recalled:
            run.append_evaluation(trial.as_record())
        on_trial(trial)

    def keep(episode: Episode, search: Search) -> None:
        nonlocal written
        if episode.best is not written and not problem.recalling:
            written = episode.best
            run.write_bytes(run.plan, written.plan.to_json())
            if search.policy is not None:
                save_policy(search.policy, run.policy)
        on_episode(episode)

    with run.held():
        problem.recorded_trials = run.evaluations()
        problem.listeners.append(record)
        try:
            with BoardListener(run.tensorboard, problem, settings) as board:
                uniform = problem.attempt(problem.budget.uniform(), "uniform")
                result = train_agent(problem, settings, (keep, board))
        finally:
            problem.listeners.remove(record)
        run.write_bytes(run.plan, result.best.plan.to_json())
        if result.policy is not None:
            save_policy(result.policy, run.policy)
    return uniform, result


def summary_of(
    run: RunDirectory, problem: PruningProblem, settings: RunConfig, result: SearchResult, rows: list[NetworkRow]
) -> dict[str, Any]:
    """The result in numbers, as ``summary.json`` holds it."""
    trials = run.evaluations()
    seen = [problem.evaluator.images if trial["images"] is None else trial["images"] for trial in trials]
    return {
        "model": settings.model.name,
        "search": settings.agent.name,
        "budget": {"metric": settings.budget.metric, "keep": settings.budget.keep},
        "rows": [row.as_record() for row in rows],
        "best_reward": result.best.reward,
        "threads": torch.get_num_threads(),
        "device": str(problem.evaluator.device),
        "batch_size": settings.budget.batch,
        "episodes": result.episodes,
        "evaluations": len(trials),
        "cache_hits": sum(trial["cached"] for trial in trials),
        "images_left": problem.evaluator.images * len(trials) - sum(seen),
        "seconds": result.seconds,
        "seconds_per_evaluation": result.seconds / len(trials),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": _command(run),
    }


def _command(run: RunDirectory) -> str:
    """What makes the run again."""
    if any(word.partition("=")[0] == "--resume" for word in sys.argv):
        return shlex.join(["prune-env", "train", str(run.config), "run.directory=..."])
    file = Path(sys.argv[0]).stem
    return shlex.join(["prune-env", *([file] if file in ("train", "compare") else []), *sys.argv[1:]])
