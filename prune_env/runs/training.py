"""A training into a folder: what `prune-env finetune` and `prune-env pretrain` share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from prune_env.common.errors import EvaluationError, RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.config import RunConfig
from prune_env.config.training import TrainingSection
from prune_env.data import Splits
from prune_env.evaluation.execution_choice import USUAL_THREADS
from prune_env.granularity import Trainable
from prune_env.models import save_weights
from prune_env.plan import PruningPlan
from prune_env.recover import Batches, Epoch, Passes, Trainer, fastest_passes, training_loss
from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint
from prune_env.recover.workers import Workers
from prune_env.runs.directory import RunDirectory
from prune_env.tasks import Task, quality_of
from scripts.common import console

Validate = Callable[[nn.Module], float]
"""The quality of a network on images that it is not trained on, in [0, 1]."""


class TrainingFolder(RunDirectory):
    """The folder of one training: its settings, its checkpoint, its weights and its curves."""

    @property
    def checkpoint(self) -> Path:
        """What the training can be taken up from: the state after the last whole epoch."""
        return self.root / "checkpoint.safetensors"

    @property
    def dense_weights(self) -> Path:
        """The dense network's weights, where the run around the folder has trained them."""
        return self.root.parent / super().dense_weights.name

    @property
    def selecting(self) -> Path:
        """The weights of the epoch to keep while parts that are trained beside weights are still in the network."""
        return self.root / "selecting.safetensors"

    @property
    def selecting_plan(self) -> Path:
        """The plan that a training of more than weights starts from; `plan` follows from it once all is decided."""
        return self.root / "selecting.json"

    @property
    def started_plan(self) -> Path:
        """The plan that the training starts from."""
        return self.selecting_plan if self.selecting_plan.exists() else self.plan

    @property
    def start(self) -> Path:
        """The weights that the training started from."""
        return self.root / "start.safetensors"

    @property
    def weights(self) -> Path:
        """The weights of the epoch to keep; see `epoch_to_keep`."""
        return self.root / "weights.safetensors"


def start_training(
    folder: Path,
    config: RunConfig,
    splits: Splits,
    model: nn.Module,
    workers: Workers,
    plan: PruningPlan | None = None,
    trainable: Trainable | None = None,
) -> TrainingFolder:
    """Makes the folder of a new training, with all that it can be taken up from.

    Args:
        folder: A folder that does not exist.
        config: The settings.
        splits: The data.
        model: The network as it is before.
        workers: Which process this is; the first alone writes.
        plan: What the network was cut by; None for one that was not.
        trainable: What is trained beside weights; None for nothing.

    Raises:
        RunError: If the folder exists or cannot be made.
    """
    if workers.first:
        with TrainingFolder.making(folder) as made:
            made.write_config(config)
            made.write_json(made.splits, splits.record())
            save_weights(model, made.start)
            if plan is not None:
                made.write_bytes(made.plan if trainable is None else made.selecting_plan, plan.to_json())
    workers.agree(None)
    return TrainingFolder(folder)


def resume_training(folder: Path) -> TrainingFolder:
    """The folder of a training that was interrupted.

    Raises:
        RunError: If there is none, or it is finished.
    """
    found = TrainingFolder.open(folder)
    if found.summary.is_file():
        raise RunError(f"The training in {str(folder)!r} is finished: its weights are {str(found.weights)!r}.")
    return found


def check_same_data(folder: TrainingFolder, splits: Splits) -> None:
    """Refuses to go on with other images.

    Raises:
        RunError: If they are not what the training was started with.
    """
    if folder.read_json(folder.splits) != splits.record():
        raise RunError(
            f"{str(folder.splits)!r} is not how the data are split now: data.path holds other data than when the "
            "training was started. Give it the same data, or start a new training."
        )


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
) -> tuple[list[Epoch], Passes]:
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

    Returns:
        What each epoch came to, and how the passes were computed.

    Raises:
        RunError: If the folder holds a checkpoint of another training.
        EvaluationError: If the loss is not finite; the last checkpoint stays.
    """
    with folder.held() if workers.first else nullcontext():
        facts = {
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
            "weights": weights_digest(model),
            "teacher": weights_digest(teacher) if teacher is not None else None,
            "processes": workers.processes,
        }
        known = read_checkpoint(folder.checkpoint, facts, batches.task) if folder.checkpoint.is_file() else None
        if workers.agree(known is not None) != (known is not None):
            raise RunError(
                f"{str(folder.root)!r} is not the same folder for all processes. Give one that all of them see."
            )
        model.to(workers.device)
        with console.status("measuring the fastest passes") if workers.first else nullcontext():
            passes = known[2] if known else workers.agree(_fastest(model, batches, settings))
        if workers.first:
            console.print(f"training in {passes.dtype}, {passes.layout}, {torch.get_num_threads()} threads")
        if teacher is not None:
            teacher.to(workers.device).to(memory_format=passes.memory_format).eval()
        trainer = Trainer(model, batches, settings, seed, workers, passes, teacher, trainable)
        kept = folder.weights if trainable is None else folder.selecting
        epochs: list[Epoch] = []
        if known:
            epochs = known[1]
            trainer.resume(known[0], len(epochs))
        with _told(folder, epochs, trainer, workers) as tell:
            for _ in range(len(epochs), settings.epochs):
                epoch = _one_more(trainer, kept, tell)
                epoch = replace(epoch, quality=validate(trainer.result))
                epochs.append(epoch)
                if workers.first and epoch_to_keep(epochs, settings.epochs) is epoch:
                    save_weights(trainer.result, kept)
                # Told twice after a kill, and not never: TensorBoard purges what comes again.
                tell(0, epoch)
                if workers.first:
                    folder.write_bytes(folder.checkpoint, to_checkpoint(trainer, epochs, facts))
        workers.agree(None)
        return epochs, passes


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


def _one_more(trainer: Trainer, kept: Path, tell: Callable[[int, Epoch | None], None]) -> Epoch:
    try:
        return trainer.run_epoch(lambda step: tell(step, None))
    except EvaluationError as error:
        left = "There is no checkpoint yet."
        if trainer.done:
            left = f"The checkpoint after epoch {trainer.done} stays, and the weights to keep so far are {str(kept)!r}."
        raise EvaluationError(f"{error} {left}") from None


def _fastest(model: nn.Module, batches: Batches, settings: TrainingSection) -> Any:
    batch, task = next(batches.epoch(0)), batches.task
    return fastest_passes(model, batch, task, lambda outputs: training_loss(outputs, batch, settings, task), settings)


@contextmanager
def _told(
    folder: TrainingFolder, epochs: list[Epoch], trainer: Trainer, workers: Workers
) -> Iterator[Callable[[int, Epoch | None], None]]:
    """Progress on the console and curves in TensorBoard, by the first process alone."""
    if not workers.first:
        yield lambda _step, _epoch: None
        return
    quality = quality_of(trainer.task)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("loss {task.fields[loss]}, {task.fields[quality]}, waiting {task.fields[waiting]}"),
        TimeRemainingColumn(),
    )
    steps = len(trainer.batches)
    with (
        Progress(*columns, console=console) as progress,
        SummaryWriter(str(folder.tensorboard), purge_step=len(epochs) + 1) as board,
    ):
        bar = progress.add_task(
            "",
            total=trainer.steps,
            epoch=len(epochs) + 1,
            loss="-",
            quality=f"{quality.name} -",
            waiting="-",
            completed=0,
        )

        def tell(step: int, epoch: Epoch | None) -> None:
            if epoch is None:
                progress.update(bar, completed=trainer.done * steps + step)
                return
            progress.update(
                bar,
                epoch=min(epoch.number + 1, trainer.settings.epochs),
                loss=f"{epoch.loss:.4f}",
                quality=f"{quality.name} {epoch.quality:{quality.form}}",
                waiting=f"{epoch.waiting:.1%}",
            )
            values = epoch.as_record(trainer.task)
            for name in ("loss", "learning_rate", quality.name, "waiting", "seconds"):
                board.add_scalar(f"training/{name}", values[name], epoch.number)
            board.flush()

        yield tell
