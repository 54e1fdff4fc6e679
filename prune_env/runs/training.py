"""The training loop in a folder, shared by fine-tuning and training from scratch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.errors import EvaluationError, RunError
from prune_env.common.event_log import EventLog
from prune_env.common.fingerprint import weights_digest
from prune_env.common.training_part import TrainingPart
from prune_env.common.words import counted
from prune_env.config.training import TrainingSection
from prune_env.data import Splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.execution_options import USUAL_THREADS
from prune_env.evaluation.training_execution import fastest_training
from prune_env.models import save_weights
from prune_env.recover import Batches, Epoch, Teacher, Trainer, Workers, training_loss
from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint
from prune_env.runs.starting import OnProgress, quietly
from prune_env.runs.training_folder import TrainingFolder
from prune_env.tasks import Metric, Task, quality_of

Validate = Callable[[nn.Module], float]
"""Returns a network's quality on validation images, in [0, 1]."""


class Step(NamedTuple):
    """A training step.

    Attributes:
        epoch: The epoch, from 1.
        done: Number of steps so far, over all epochs.
        of: Number of steps of the whole training.
    """

    epoch: int
    done: int
    of: int


@dataclass(frozen=True)
class TrainingListener:
    """Callbacks of a training; only the first process calls them.

    Attributes:
        on_progress: Receives progress messages.
        on_step: Called with each step.
        on_epoch: Called with each validated epoch and with the metric of its quality.
    """

    on_progress: OnProgress = quietly
    on_step: Callable[[Step], None] = quietly
    on_epoch: Callable[[Epoch, Metric], None] = quietly


NOBODY = TrainingListener()


def set_threads(settings: TrainingSection) -> None:
    """Sets torch's number of threads; null uses the number that torch chose when it was loaded."""
    torch.set_num_threads(settings.threads or USUAL_THREADS)


def training_images(
    splits: Splits, settings: TrainingSection, seed: int, workers: Workers, task: Task, steps: int | None = None
) -> Batches:
    """All training images except the reward set, on which the epochs are measured; ``steps`` as `Batches`.

    Raises:
        ConfigError: If the processes cannot share a batch evenly.
    """
    indices = np.sort(np.concatenate([splits.train_indices, splits.calibration_indices]))
    return Batches(splits.source, indices, settings, seed, workers, task, steps=steps)


def train_into(
    folder: TrainingFolder,
    model: nn.Module,
    batches: Batches,
    settings: TrainingSection,
    seed: int,
    workers: Workers,
    validate: Validate,
    teacher: Teacher | None = None,
    trainable: TrainingPart | None = None,
    listener: TrainingListener = NOBODY,
) -> tuple[list[Epoch], ExecutionSettings]:
    """Starts or resumes the training of a network, with a checkpoint after each epoch.

    The weights of the last epoch are kept (of their moving average, if the settings ask for one), so the choice needs
    no images. As a rule the images that could choose, the reward set, were among those that the dense network was
    trained on: an early epoch still remembers them, and would beat a later one that generalises better.

    Args:
        folder: The folder of the checkpoint, the weights and the curves.
        model: The network; trained in place.
        batches: The training images.
        settings: The settings of the training.
        seed: The seed of everything random.
        workers: The processes that share the training.
        validate: Measures the quality of the network.
        teacher: The network to imitate; None for no teacher.
        trainable: The parts that are trained besides weights; None if there are none.
        listener: Called with steps and epochs.

    Returns:
        The epochs, and the execution settings of the steps.

    Raises:
        RunError: If the folder holds a checkpoint of another training.
        EvaluationError: If the loss is not finite. The last checkpoint stays.
    """
    with folder.held() if workers.first else nullcontext():
        facts = _facts(model, settings, seed, workers, teacher)
        known = _checkpoint_of(folder, facts, workers, batches.task)
        model.to(workers.device)
        listener = listener if workers.first else NOBODY
        listener.on_progress("measuring the fastest execution settings")
        execution = known[2] if known else workers.agree(_fastest(model, batches, settings))
        listener.on_progress(
            f"training in {execution.dtype}, {execution.layout}, {counted(torch.get_num_threads(), 'thread')}"
        )
        trainer = Trainer(model, batches, settings, seed, workers, execution, teacher, trainable)
        kept = folder.weights if trainable is None else folder.selecting
        epochs = known[1] if known else []
        if known:
            trainer.resume(known[0], len(epochs))
        with _curves(folder, len(epochs), workers, batches.task) as draw:
            for _ in range(len(epochs), settings.epochs):
                epoch = _one_more(trainer, kept, listener)
                epoch = replace(epoch, quality=validate(trainer.result))
                epochs.append(epoch)
                if workers.first:
                    save_weights(trainer.result, kept)
                # Log before the checkpoint: after a kill an epoch is logged twice rather than lost.
                draw(epoch)
                listener.on_epoch(epoch, quality_of(batches.task))
                if workers.first:
                    folder.write_bytes(folder.checkpoint, to_checkpoint(trainer, epochs, facts))
        workers.agree(None)
        return epochs, execution


def _facts(
    model: nn.Module, settings: TrainingSection, seed: int, workers: Workers, teacher: Teacher | None
) -> dict[str, Any]:
    """Facts that must be equal in a checkpoint and in the training that resumes it."""
    return {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "weights": weights_digest(model),
        "teacher": teacher.digest if teacher is not None else None,
        "processes": workers.processes,
    }


def _checkpoint_of(
    folder: TrainingFolder, facts: dict[str, Any], workers: Workers, task: Task
) -> tuple[dict[str, Tensor], list[Epoch], ExecutionSettings] | None:
    """Reads the last checkpoint; None if there is none yet."""
    known = read_checkpoint(folder.checkpoint, facts, task) if folder.checkpoint.is_file() else None
    if workers.agree(known is not None) != (known is not None):
        raise RunError(
            f"{str(folder.root)!r} is not the same folder for all processes. Give a folder on a shared file system."
        )
    return known


def _one_more(trainer: Trainer, kept: Path, listener: TrainingListener) -> Epoch:
    before = trainer.done * len(trainer.batches)
    try:
        return trainer.run_epoch(lambda step: listener.on_step(Step(trainer.done + 1, before + step, trainer.steps)))
    except EvaluationError as error:
        left = "There is no checkpoint yet."
        if trainer.done:
            left = f"The checkpoint after epoch {trainer.done} stays, and the weights to keep so far are {str(kept)!r}."
        raise EvaluationError(f"{error} {left}") from None


def _fastest(model: nn.Module, batches: Batches, settings: TrainingSection) -> ExecutionSettings:
    batch, task = next(batches.epoch(0)), batches.task
    return fastest_training(model, batch, task, lambda outputs: training_loss(outputs, batch, settings, task), settings)


@contextmanager
def _curves(folder: TrainingFolder, known: int, workers: Workers, task: Task) -> Iterator[Callable[[Epoch], None]]:
    """Yields a function that logs an epoch to TensorBoard; only the first process logs."""
    if not workers.first:
        yield quietly
        return
    with EventLog(folder.tensorboard, purge_step=known + 1) as log:

        def draw(epoch: Epoch) -> None:
            values = epoch.as_record(task)
            quality = quality_of(task).name
            names = {"train": ("loss", "learning_rate"), "eval": (quality,), "time": ("waiting", "seconds")}
            tags = [(f"{family}/{name}", name) for family, own in names.items() for name in own]
            log.add_scalars({tag: values[name] for tag, name in tags}, epoch.number)
            log.flush()

        yield draw
