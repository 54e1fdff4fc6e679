"""A training into a folder: what fine-tuning and training from scratch share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from prune_env.common.errors import EvaluationError, RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.config.training import TrainingSection
from prune_env.data import Splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.execution_options import USUAL_THREADS
from prune_env.evaluation.training_execution import fastest_training
from prune_env.granularity import Trainable
from prune_env.models import save_weights
from prune_env.recover import Batches, Epoch, Trainer, Workers, training_loss
from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint
from prune_env.runs.starting import OnProgress, quietly
from prune_env.runs.training_folder import TrainingFolder
from prune_env.tasks import Metric, Task, quality_of

Validate = Callable[[nn.Module], float]
"""The quality of a network on images that it is not trained on, in [0, 1]."""


class Step(NamedTuple):
    """A step of a training.

    Attributes:
        epoch: The epoch that it is in, from 1.
        done: Steps so far, of all epochs.
        of: Steps of the whole training.
    """

    epoch: int
    done: int
    of: int


@dataclass(frozen=True)
class TrainingListener:
    """Who hears of a training; of several processes, the first alone tells.

    Attributes:
        on_progress: Hears in words what is going on.
        on_step: Hears of each step.
        on_epoch: Hears of each epoch, once its quality is known, and of the metric that this is.
    """

    on_progress: OnProgress = quietly
    on_step: Callable[[Step], None] = quietly
    on_epoch: Callable[[Epoch, Metric], None] = quietly


NOBODY = TrainingListener()


def set_threads(settings: TrainingSection) -> None:
    """Makes torch train with the threads given, or as many as it chose when it was loaded."""
    torch.set_num_threads(settings.threads or USUAL_THREADS)


def training_images(splits: Splits, settings: TrainingSection, seed: int, workers: Workers, task: Task) -> Batches:
    """All training images but the reward set's, by which the epoch to keep is chosen.

    Raises:
        ConfigError: If a batch cannot be shared among the processes.
    """
    indices = np.sort(np.concatenate([splits.train_indices, splits.calibration_indices]))
    return Batches(splits.source, indices, settings, seed, workers, task)


def train_into(
    folder: TrainingFolder,
    model: nn.Module,
    batches: Batches,
    settings: TrainingSection,
    seed: int,
    workers: Workers,
    validate: Validate,
    teacher: nn.Module | None = None,
    trainable: Trainable | None = None,
    listener: TrainingListener = NOBODY,
) -> tuple[list[Epoch], ExecutionSettings]:
    """Trains a network, or goes on training it, with a checkpoint after each epoch.

    Args:
        folder: Where checkpoint, weights and curves are kept.
        model: The network; trained in place.
        batches: Its images.
        settings: How it is trained.
        seed: For everything random.
        workers: Which process this is among those that share the training.
        validate: Says how good a network is.
        teacher: What the network is to be like; None for nothing.
        trainable: What is trained beside weights; None for nothing.
        listener: Who hears of steps and epochs.

    Returns:
        What each epoch came to, and how the steps ran.

    Raises:
        RunError: If the folder holds a checkpoint of another training.
        EvaluationError: If the loss is not finite; the last checkpoint stays.
    """
    with folder.held() if workers.first else nullcontext():
        facts = _facts(model, settings, seed, workers, teacher)
        known = _checkpoint_of(folder, facts, workers, batches.task)
        model.to(workers.device)
        listener = listener if workers.first else NOBODY
        listener.on_progress("measuring the fastest execution settings")
        execution = known[2] if known else workers.agree(_fastest(model, batches, settings))
        listener.on_progress(f"training in {execution.dtype}, {execution.layout}, {torch.get_num_threads()} threads")
        if teacher is not None:
            teacher.to(workers.device).to(memory_format=execution.memory_format).eval()
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
                if workers.first and epoch_to_keep(epochs, settings.epochs) is epoch:
                    save_weights(trainer.result, kept)
                # Log before the checkpoint: after a kill an epoch is logged twice rather than lost.
                draw(epoch)
                listener.on_epoch(epoch, quality_of(batches.task))
                if workers.first:
                    folder.write_bytes(folder.checkpoint, to_checkpoint(trainer, epochs, facts))
        workers.agree(None)
        return epochs, execution


def _facts(
    model: nn.Module, settings: TrainingSection, seed: int, workers: Workers, teacher: nn.Module | None
) -> dict[str, Any]:
    """What a checkpoint must agree in with the training that goes on from it."""
    return {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "weights": weights_digest(model),
        "teacher": weights_digest(teacher) if teacher is not None else None,
        "processes": workers.processes,
    }


def _checkpoint_of(
    folder: TrainingFolder, facts: dict[str, Any], workers: Workers, task: Task
) -> tuple[dict[str, Tensor], list[Epoch], ExecutionSettings] | None:
    """What the last checkpoint holds; None where there is none yet."""
    known = read_checkpoint(folder.checkpoint, facts, task) if folder.checkpoint.is_file() else None
    if workers.agree(known is not None) != (known is not None):
        raise RunError(f"{str(folder.root)!r} is not the same folder for all processes. Give one that all of them see.")
    return known


def epoch_to_keep(epochs: Sequence[Epoch], planned: int) -> Epoch:
    """Of the second half of a training the epoch that did best on the validation images; before that, the last one.

    The network that a training starts from has as a rule been trained on these images: its first epochs still know
    them by heart, and would win over later ones that are better on any others. What is trained beside weights is
    decided by then, too.

    Args:
        epochs: Those so far, one or more.
        planned: How many there will be.

    Returns:
        One of them; of equally good ones the later, whose learning rate was lower.
    """
    late = [epoch for epoch in epochs if epoch.number > planned // 2] or epochs[-1:]
    return max(late, key=lambda epoch: (epoch.quality or 0.0, epoch.number))


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
    """Draws epochs in TensorBoard, after those known, by the first process alone."""
    if not workers.first:
        yield quietly
        return
    with SummaryWriter(str(folder.tensorboard), purge_step=known + 1) as board:

        def draw(epoch: Epoch) -> None:
            values = epoch.as_record(task)
            for name in ("loss", "learning_rate", quality_of(task).name, "waiting", "seconds"):
                board.add_scalar(f"training/{name}", values[name], epoch.number)
            board.flush()

        yield draw
