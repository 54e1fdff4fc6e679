"""Starts a run: loads its problem and makes its folder with the files that a resume needs."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from prune_env.budget.latency_model import LatencyModel
from prune_env.common.errors import DoubtfulNetworkError, DoubtfulNetworkWarning, RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.sections import ExecutionSection
from prune_env.criteria import save_scores
from prune_env.data import Splits
from prune_env.data.splits import SplitsRecord
from prune_env.env.builders import NOTHING_REMEMBERED, Remembered, build_problem, build_space
from prune_env.env.loading import check_names, device_of, load_model, load_splits, with_preprocessing
from prune_env.env.problem import PruningProblem
from prune_env.env.space import SearchSpace
from prune_env.evaluation.dense import DenseQuality, measure_dense
from prune_env.granularity.base import GranularityMeasurements
from prune_env.models import save_weights
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import use_threads
from prune_env.search.registry import check_named_search
from prune_env.tasks import make_task

OnProgress = Callable[[str], None]
"""Receives progress messages."""


OnDense = Callable[[DenseQuality], None]
"""Receives the quality of the dense network, before anything else is measured."""


def quietly(*_: object) -> None:
    """A listener that does nothing."""


def load_problem(
    settings: RunConfig,
    run: RunDirectory | None = None,
    on_progress: OnProgress = quietly,
    on_dense: OnDense = quietly,
) -> tuple[Splits, PruningProblem]:
    """Loads the data and the network that the settings name, checks the network's quality and builds the problem.

    Args:
        settings: The settings; a sparse training is left out.
        run: A run with these settings whose measurements are reused; None measures again.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the dense network; not called for a run, whose network was checked.

    Raises:
        DoubtfulNetworkError: As `check_dense`.
        BudgetError: If the budget cannot be met.
    """
    splits, model = _loaded(settings, on_progress)
    if run is None:
        check_dense(settings, splits, model, on_progress, on_dense)
    remembered = remembered_by(run, settings) if run is not None else NOTHING_REMEMBERED
    return splits, build_problem(settings, splits, model, on_progress, remembered)


def load_space(
    settings: RunConfig, on_progress: OnProgress = quietly, on_dense: OnDense = quietly
) -> tuple[Splits, SearchSpace, DenseQuality]:
    """Loads and checks as `load_problem` does, and builds the search space alone.

    Args:
        settings: The settings.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the dense network.

    Raises:
        ConfigError: If a setting holds an unknown name.
        DoubtfulNetworkError: As `check_dense`.
        BudgetError: If the budget cannot be met.
    """
    check_names(settings)
    check_named_search(settings)
    splits, model = _loaded(settings, on_progress)
    dense = check_dense(settings, splits, model, on_progress, on_dense)
    return splits, build_space(settings, splits, model, on_progress), dense


def _loaded(settings: RunConfig, on_progress: OnProgress) -> tuple[Splits, nn.Module]:
    use_threads(settings)
    splits = load_splits(settings)
    return splits, load_network(settings, splits, on_progress)


def check_dense(
    settings: RunConfig,
    splits: Splits,
    model: nn.Module,
    on_progress: OnProgress = quietly,
    on_dense: OnDense = quietly,
) -> DenseQuality:
    """Measures the dense network, and refuses a network on which a search makes no sense (`DenseQuality.doubtful`).

    Args:
        settings: The settings; ``run.force`` allows any network.
        splits: The data.
        model: The network, in eval mode.
        on_progress: Receives progress messages.
        on_dense: Receives the quality, also of a network that is refused.

    Returns:
        The quality.

    Raises:
        DoubtfulNetworkError: Names the quality and the likely reasons.
    """
    on_progress("measuring the dense network")
    dense = measure_dense(model, splits, make_task(settings.task), device_of(settings))
    if settings.model.weights is None and not settings.pretrain.epochs and dense.near_chance:
        reason = (
            "weights: model.weights is null and pretrain.epochs is 0, so the network has the weights that it was built "
            "with; they may be random"
        )
        dense = replace(dense, suspicions=(reason, *dense.suspicions))
    on_dense(dense)
    if not dense.doubtful:
        return dense
    if settings.run.force:
        warnings.warn(dense.doubts(), DoubtfulNetworkWarning, stacklevel=2)
        return dense
    raise DoubtfulNetworkError(
        f"{dense.doubts()}\nMend what is wrong, or go on all the same with --force (run.force=true; in Python "
        "force=True)."
    )


def load_network(settings: RunConfig, splits: Splits, on_progress: OnProgress = quietly) -> nn.Module:
    """Loads the network that the settings name, and trains it if they ask for pretraining."""
    training = settings.model.weights is None and settings.pretrain.epochs
    on_progress("training the dense network" if training else "loading the network")
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
    # Record measured and found settings, so that the run's config repeats the same run.
    env = settings.env.model_copy(update={"round_to": problem.budget.round_to})
    execution = ExecutionSection(**asdict(problem.execution_choice.execution))
    measured = settings.model_copy(update={"execution": execution, "env": env})
    run.write_config(with_preprocessing(measured, splits.source))
    if problem.latency is not None:
        run.write_record(run.latency, problem.latency)
    of_granularity = problem.granularity.measurements()
    if of_granularity is not None:
        run.write_record(run.root / of_granularity.file, of_granularity)
    run.write_record(run.splits, splits.record())
    run.write_json(run.problem, problem.as_record())
    save_scores(settings.criterion.name, problem.context, problem.scores, run.scores)
    if problem.report is not None:
        run.write_record(run.sensitivity, problem.report)
    if settings.agent.policy is not None:
        run.keep_first_policy(Path(settings.agent.policy))
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
