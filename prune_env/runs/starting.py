"""Starts a run: loads its problem and makes its folder with the files that a resume needs."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from torch import nn

from prune_env.budget.latency_model import LatencyModel
from prune_env.common.errors import RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.sections import ExecutionSection
from prune_env.criteria import save_scores
from prune_env.data import Splits
from prune_env.data.splits import SplitsRecord
from prune_env.env.builders import NOTHING_REMEMBERED, Remembered, build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.env.problem import PruningProblem
from prune_env.granularity.base import GranularityMeasurements
from prune_env.models import save_weights
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import use_threads

OnProgress = Callable[[str], None]
"""Receives progress messages."""


def quietly(*_: object) -> None:
    """A listener that does nothing."""


def load_problem(
    settings: RunConfig, run: RunDirectory | None = None, on_progress: OnProgress = quietly
) -> tuple[Splits, PruningProblem]:
    """Loads the data and the network that the settings name, and builds the problem.

    Args:
        settings: The settings; a sparse training is left out.
        run: A run with these settings whose measurements are reused; None measures again.
        on_progress: Receives progress messages.

    Raises:
        BudgetError: If the budget cannot be met.
    """
    use_threads(settings)
    splits = load_splits(settings)
    model = load_network(settings, splits, on_progress)
    remembered = remembered_by(run, settings) if run is not None else NOTHING_REMEMBERED
    return splits, build_problem(settings, splits, model, on_progress, remembered)


def load_network(settings: RunConfig, splits: Splits, on_progress: OnProgress = quietly) -> nn.Module:
    """Loads the network that the settings name, and trains it if they ask for pretraining."""
    on_progress("training the dense network" if settings.model.weights is None else "loading")
    return load_model(
        settings,
        splits,
        lambda epoch, loss: on_progress(
            f"training the dense network: epoch {epoch} of {settings.pretrain.epochs}, loss {loss:.3f}"
        ),
    )


def untrained_network(settings: RunConfig, splits: Splits) -> nn.Module:
    """The network that the settings name, without weights and pretraining, for weights that are loaded later."""
    untrained = {
        "model": settings.model.model_copy(update={"weights": None}),
        "pretrain": settings.pretrain.model_copy(update={"epochs": 0}),
    }
    return load_model(settings.model_copy(update=untrained), splits)


def start_run(
    folder: Path, settings: RunConfig, splits: Splits, problem: PruningProblem, sparsified: RunDirectory | None = None
) -> RunDirectory:
    """Makes the directory of a new run, with the files that a resume needs.

    Args:
        folder: The run directory; must not exist.
        settings: The settings.
        splits: The data.
        problem: The problem of the search.
        sparsified: The run with a finished sparse training that gets the files; None makes a new one.

    Raises:
        RunError: If the folder exists or cannot be made.
    """
    with nullcontext(sparsified) if sparsified is not None else RunDirectory.making(folder) as run:
        _write_start(run, settings, splits, problem)
    return RunDirectory.open(folder)


def _write_start(run: RunDirectory, settings: RunConfig, splits: Splits, problem: PruningProblem) -> None:
    assert problem.execution_choice is not None
    # Record measured settings, so that the run's config repeats the same run.
    env = settings.env.model_copy(update={"round_to": problem.budget.round_to})
    execution = ExecutionSection(**asdict(problem.execution_choice.execution))
    run.write_config(settings.model_copy(update={"execution": execution, "env": env}))
    if problem.latency is not None:
        run.write_record(run.latency, problem.latency)
    measured = problem.granularity.measurements()
    if measured is not None:
        run.write_record(run.root / measured.file, measured)
    run.write_record(run.splits, splits.record())
    save_scores(settings.criterion.name, problem.context, problem.scores, run.scores)
    if problem.report is not None:
        run.write_record(run.sensitivity, problem.report)
    if settings.model.weights is None or settings.sparsify.epochs:
        save_weights(problem.walk.model, run.dense_weights)
    # Last, because it marks a run with a sparse training as started.
    run.write_record(run.execution, problem.execution_choice.record(weights_digest(problem.walk.model)))


def remembered_by(run: RunDirectory, settings: RunConfig) -> Remembered:
    """The measurements of a run, so that a resume does not repeat them."""
    latency = read_record(run.latency, LatencyModel) if run.latency.is_file() else None
    return Remembered(run.scores, latency, measurements_of(run, settings))


def measurements_of(run: RunDirectory, settings: RunConfig) -> GranularityMeasurements | None:
    """The measurements of the run's granularity (`Granularity.measurements`); None if there are none."""
    kind: type[GranularityMeasurements] | None = GRANULARITIES.find(settings.granularity.name).Measurements
    return read_record(run.root / kind.file, kind) if kind is not None and (run.root / kind.file).is_file() else None


def check_same_start(run: RunDirectory, splits: Splits, problem: PruningProblem) -> None:
    """Checks that weights and images are those of the run's start.

    Raises:
        RunError: If either differs.
    """
    if run.execution_record().weights != weights_digest(problem.walk.model):
        raise RunError(
            f"{str(run.root)!r} was started with other weights than model.weights holds now. Restore the weights, "
            "or start a new run."
        )
    if read_record(run.splits, SplitsRecord) != splits.record():
        raise RunError(
            f"{str(run.splits)!r} differs from the current split: data.path holds other data than at the start of the "
            "run. Restore the data, or start a new run."
        )
