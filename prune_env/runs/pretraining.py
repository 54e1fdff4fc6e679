"""Trains a network from scratch in its own folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.evaluation.measuring import measure
from prune_env.models import load_weights
from prune_env.recover import Batches
from prune_env.recover.workers import AcceleratedWorkers, Workers
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training import NOBODY, TrainingListener, set_threads, train_into, training_images
from prune_env.runs.training_folder import TrainingFolder, check_same_data, resume_training, start_training
from prune_env.tasks import make_task, quality_of

BATCH = 256
"""Images per forward pass when the network is measured."""


@dataclass(frozen=True)
class Pretraining:
    """A training from scratch that was started and may have been interrupted.

    Attributes:
        folder: The folder of the training.
        settings: The settings.
        workers: The processes that share the training.
        splits: The data.
        batches: The training images.
        network: The network to train.
    """

    folder: TrainingFolder
    settings: RunConfig
    workers: Workers
    splits: Splits
    batches: Batches
    network: nn.Module


def start_pretraining(settings: RunConfig, folder: Path) -> Pretraining:
    """Prepares a training and makes its folder; `finish_pretraining` trains.

    The network is trained on all training images except the reward set, from scratch or from ``model.weights``.

    Args:
        settings: The settings; ``pretrain`` sets the training.
        folder: A folder that does not exist.

    Raises:
        ConfigError: If ``pretrain.epochs`` is 0.
        RunError: If the folder exists or cannot be made.
    """
    if not settings.pretrain.epochs:
        raise ConfigError("pretrain.epochs: 0 given; allowed are 1 or more. Give pretrain.epochs=30, for example.")
    RunDirectory.check_free(folder)
    return _prepared(settings, folder, resume=False)


def resume_pretraining(folder: Path, trust: Trust = NOTHING) -> Pretraining:
    """Loads an interrupted training with its own settings; `finish_pretraining` resumes it.

    Args:
        folder: The folder of the training.
        trust: The code that the training's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the training does not exist, is finished, or was started with other data.
    """
    return _prepared(resume_training(folder).settings(trust=trust), folder, resume=True)


def _prepared(settings: RunConfig, place: Path, resume: bool) -> Pretraining:
    set_threads(settings.pretrain)
    workers = AcceleratedWorkers(device_of(settings))
    splits = load_splits(settings)
    batches = training_images(splits, settings.pretrain, settings.seed, workers, make_task(settings.task))
    untrained = settings.model_copy(update={"pretrain": settings.pretrain.model_copy(update={"epochs": 0})})
    network = load_model(untrained, splits)
    if not resume:
        folder = start_training(place, settings, splits, network, workers)
    else:
        folder = resume_training(place)
        check_same_data(folder, splits)
        load_weights(network, folder.start)
    return Pretraining(folder, settings, workers, splits, batches, network)


def finish_pretraining(training: Pretraining, listener: TrainingListener = NOBODY) -> dict[str, Any] | None:
    """Trains to the end, measures the network, and writes weights and ``summary.json``.

    Args:
        training: The training.
        listener: Receives the progress of the training.

    Returns:
        The content of ``summary.json``; None in all processes except the first.

    Raises:
        EvaluationError: If the loss is not finite. The last checkpoint stays.
    """
    folder, settings, workers, network = training.folder, training.settings, training.workers, training.network
    task, reward = training.batches.task, training.splits.reward().to(workers.device)

    def validate(model: nn.Module) -> float:
        return measure(model.eval(), reward.batches(BATCH), task).quality

    epochs, execution = train_into(
        folder,
        network,
        training.batches,
        settings.pretrain,
        settings.seed,
        workers,
        validate,
        listener=listener,
    )
    if not workers.first:
        return None
    load_weights(network, folder.weights)
    test = (batch for part in training.splits.test_batches(BATCH) for batch in part.to(workers.device).batches(BATCH))
    quality = quality_of(task).name
    summary = {
        "model": settings.model.name,
        f"reward_{quality}": validate(network),
        f"test_{quality}": measure(network, test, task).quality,
        "execution": asdict(execution),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "epochs": [epoch.as_record(task) for epoch in epochs],
        "weights": str(folder.weights),
    }
    folder.write_json(folder.summary, summary)
    return summary
