"""Sparse training: trains a run's network with a penalty before the search, in the run's own folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, JsonValue
from torch import nn

from prune_env.common.copying import copied
from prune_env.common.records import Record, read_record
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits, load_images
from prune_env.env.builders import build_problem, trace
from prune_env.env.loading import device_of, load_splits, with_preprocessing
from prune_env.evaluation.measuring import measure
from prune_env.models import load_weights, save_weights
from prune_env.recover import Batches, Teacher, Workers
from prune_env.recover.penalties import PENALTIES, Penalty, PenaltyContext
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import use_threads
from prune_env.runs.starting import OnDense, OnProgress, check_dense, load_network, quietly, untrained_network
from prune_env.runs.training import TrainingListener, set_threads, train_into, training_images
from prune_env.runs.training_folder import TrainingFolder, check_same_data, start_training
from prune_env.search.registry import check_evaluations
from prune_env.tasks import make_task, quality_of

BATCH = 256
"""Images per forward pass when the network is measured."""


@dataclass(frozen=True)
class SparseTraining:
    """A sparse training that was started and may have been interrupted.

    Attributes:
        run: The run, which holds only its settings and the training.
        folder: The folder of the training.
        settings: The settings.
        splits: The data.
        batches: The training images.
        dense: The network before the training, on the CPU.
        penalty: The penalty.
    """

    run: RunDirectory
    folder: TrainingFolder
    settings: RunConfig
    splits: Splits
    batches: Batches
    dense: nn.Module
    penalty: Penalty


def start_sparsifying(
    settings: RunConfig, folder: Path, on_progress: OnProgress = quietly, on_dense: OnDense = quietly
) -> SparseTraining:
    """Prepares a sparse training and makes its run; `finish_sparsifying` trains.

    Args:
        settings: The settings of the run; ``sparsify`` sets the training.
        folder: The run directory, which must not exist.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the network before the training.

    Raises:
        ConfigError: If the penalty does not suit the network.
        DoubtfulNetworkError: If a search on the network makes no sense.
        BudgetError: If the budget is out of reach of the dense network's smallest plan.
        RunError: If the folder exists or cannot be made.
    """
    RunDirectory.check_free(folder)
    splits = load_splits(settings)
    dense = load_network(settings, splits, on_progress)
    check_dense(settings, splits, dense, on_progress, on_dense)
    on_progress("checking the search before the sparse training")
    _check_search(settings, splits, dense)
    batches, penalty = _prepared(settings, splits, dense)
    penalty.network(copied(dense))
    settings = with_preprocessing(settings, splits.source)
    with RunDirectory.making(folder) as run:
        run.write_config(settings)
        start_training(run.sparsify, settings, splits, dense, batches.workers)
    run = RunDirectory.open(folder)
    return SparseTraining(run, TrainingFolder(run.sparsify), settings, splits, batches, dense, penalty)


def resume_sparsifying(run: RunDirectory, trust: Trust = NOTHING) -> SparseTraining:
    """Loads the sparse training of a run whose search has not started; `finish_sparsifying` resumes it.

    Args:
        run: The run.
        trust: The code that the run's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the training was started with other data.
    """
    folder = TrainingFolder.open(run.sparsify)
    settings = run.settings(trust=trust)
    use_threads(settings)
    splits = load_splits(settings)
    check_same_data(folder, splits)
    dense = untrained_network(settings, splits)
    load_weights(dense, folder.start)
    batches, penalty = _prepared(settings, splits, dense)
    return SparseTraining(run, folder, settings, splits, batches, dense, penalty)


def finish_sparsifying(training: SparseTraining, on_progress: OnProgress = quietly) -> nn.Module:
    """Trains to the end, and writes the plain network's weights and ``summary.json``; does nothing if both exist.

    Args:
        training: The training.
        on_progress: Receives progress messages.

    Returns:
        The network with its sparse weights, in eval mode on the CPU.

    Raises:
        EvaluationError: If the loss is not finite. The last checkpoint stays.
    """
    folder, sparse = training.folder, copied(training.dense).eval()
    if not folder.summary.is_file():
        threads = torch.get_num_threads()
        set_threads(training.settings.sparsify)
        try:
            folder.write_json(folder.summary, _train(training, sparse, on_progress))
        finally:
            torch.set_num_threads(threads)
    load_weights(sparse, folder.weights)
    return sparse


def _train(training: SparseTraining, sparse: nn.Module, on_progress: OnProgress) -> dict[str, Any]:
    """Trains and writes the weights; returns the summary. ``sparse`` is a copy of the dense network."""
    folder, settings, penalty = training.folder, training.settings, training.penalty
    section, workers, task = settings.sparsify, training.batches.workers, training.batches.task
    before = _qualities(training, training.dense)
    reward = training.splits.reward().to(workers.device)

    def validate(model: nn.Module) -> float:
        return measure(model.eval(), reward.batches(BATCH), task).quality

    network = penalty.network(copied(training.dense))
    epochs, execution = train_into(
        folder,
        network,
        training.batches,
        section,
        settings.seed,
        workers,
        validate,
        Teacher(copied(training.dense)) if section.distillation else None,
        trainable=penalty,
        listener=_listener(on_progress, section.epochs),
    )
    load_weights(network, folder.selecting)
    did = penalty.record(network)
    sparse.load_state_dict(penalty.finish(network).state_dict())
    save_weights(sparse, folder.weights)
    return {
        "model": settings.model.name,
        "penalty": section.penalty,
        "before": before,
        "after": _qualities(training, sparse),
        "effect": did,
        "execution": asdict(execution),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "epochs": [epoch.as_record(task) for epoch in epochs],
        "weights": str(folder.weights),
    }


class SparseSummary(Record):
    """The fields of a sparse training's ``summary.json`` that the summary of its run tells."""

    model_config = ConfigDict(extra="ignore")

    penalty: str
    before: dict[str, float]
    after: dict[str, float]
    seconds: float
    weights: str
    epochs: list[JsonValue]
    effect: dict[str, JsonValue]


def sparse_record(run: RunDirectory) -> dict[str, Any] | None:
    """The part of a sparse training's summary that belongs in the summary of its run; None without such a training."""
    folder = TrainingFolder(run.sparsify)
    if not folder.summary.is_file():
        return None
    summary = read_record(folder.summary, SparseSummary)
    return {
        **summary.model_dump(include={"penalty", "before", "after", "seconds", "weights"}),
        "epochs": len(summary.epochs),
        "warnings": summary.effect.get("warnings", []),
    }


def _prepared(settings: RunConfig, splits: Splits, dense: nn.Module) -> tuple[Batches, Penalty]:
    workers = Workers(device_of(settings))
    batches = training_images(splits, settings.sparsify, settings.seed, workers, make_task(settings.task))
    context = PenaltyContext(
        settings.sparsify,
        dense,
        load_images(splits.source, "train", splits.reward_indices[:1]).images,
        frozenset(name.removesuffix(":in") for name in settings.env.protect),
        lambda: trace(settings, splits, dense),
    )
    return batches, PENALTIES.find(settings.sparsify.penalty)(context)


def _check_search(settings: RunConfig, splits: Splits, dense: nn.Module) -> None:
    """Refuses before the training what the search would refuse on the dense network.

    The training may change which layers are sensitive, so the search checks again.
    """
    check_evaluations(build_problem(settings, splits, copied(dense)), settings)


def _qualities(training: SparseTraining, model: nn.Module) -> Mapping[str, float]:
    """The quality on the reward set and, if there is one, on the test set."""
    task, device = training.batches.task, training.batches.workers.device
    network, quality = copied(model).to(device).eval(), quality_of(task).name
    reward = training.splits.reward().to(device).batches(BATCH)
    qualities = {f"reward_{quality}": measure(network, reward, task).quality}
    if len(training.splits.test_indices):
        test = (batch for part in training.splits.test_batches(BATCH) for batch in part.to(device).batches(BATCH))
        qualities[f"test_{quality}"] = measure(network, test, task).quality
    return qualities


def _listener(on_progress: OnProgress, epochs: int) -> TrainingListener:
    def words(text: str) -> None:
        on_progress(f"sparse training: {text}")

    return TrainingListener(words, lambda step: words(f"epoch {step.epoch} of {epochs}, step {step.done} of {step.of}"))
