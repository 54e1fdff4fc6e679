"""The folder of one training, with the files that a resume needs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from prune_env.common.errors import RunError
from prune_env.common.gradients import refuse_frozen
from prune_env.common.records import Record, read_record
from prune_env.common.tensor_records import nothing_recorded, read_tensor_file
from prune_env.common.training_part import TrainingPart
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.data.splits import SplitsRecord
from prune_env.models import save_weights
from prune_env.plan import PruningPlan
from prune_env.recover import Workers
from prune_env.runs.run_directory import RunDirectory


class TrainingFolder(RunDirectory):
    """The folder of one training: settings, checkpoint, weights and curves."""

    @property
    def checkpoint(self) -> Path:
        """The state after the last complete epoch, which a resume loads."""
        return self.root / "checkpoint.safetensors"

    @property
    def dense_weights(self) -> Path:
        """The dense network's weights, if the enclosing run trained them."""
        return self.root.parent / super().dense_weights.name

    @property
    def selecting(self) -> Path:
        """The weights of the last epoch so far, in a network that still has parts trained besides weights."""
        return self.root / "selecting.safetensors"

    @property
    def selecting_plan(self) -> Path:
        """The initial plan of a training with a `TrainingPart`; `plan` is written at its end."""
        return self.root / "selecting.json"

    @property
    def started_plan(self) -> Path:
        """The initial plan of the training."""
        return self.selecting_plan if self.selecting_plan.exists() else self.plan

    @property
    def right(self) -> Path:
        """Which test images each measured network gets right, bool [images] by name, if the task says so."""
        return self.root / "right.safetensors"

    def read_right(self, name: str) -> Tensor | None:
        """Which test images a network gets right, bool [images]; None if that is not known.

        Raises:
            RunError: If the file is damaged or changed.
        """
        if not self.right.is_file():
            return None
        _, tensors = read_tensor_file(self.right, Record, earlier=nothing_recorded)
        found, images = tensors.get(name), len(read_record(self.splits, SplitsRecord).test)
        if found is not None and (found.dtype != torch.bool or found.shape != (images,)):
            raise RunError(
                f"{str(self.right)!r} is damaged: {name!r} has not one truth value for each of the {images} test "
                f"images. {Record.remedy}"
            )
        return found

    @property
    def start(self) -> Path:
        """The initial weights of the training."""
        return self.root / "start.safetensors"

    @property
    def weights(self) -> Path:
        """The weights to keep: those of the last epoch so far."""
        return self.root / "weights.safetensors"


def start_training(
    folder: Path,
    config: RunConfig,
    splits: Splits,
    model: nn.Module,
    workers: Workers,
    plan: PruningPlan | None = None,
    trainable: TrainingPart | None = None,
) -> TrainingFolder:
    """Makes the folder of a new training, with the files that a resume needs.

    Args:
        folder: A folder that does not exist.
        config: The settings.
        splits: The data.
        model: The network before the training.
        workers: The processes that share the training; only the first writes.
        plan: The plan that cut the network; None if the network is not cut.
        trainable: The parts that are trained besides weights; None if there are none.

    Raises:
        ModelError: If no parameter of the network can be trained.
        RunError: If the folder exists or cannot be made.
    """
    refuse_frozen(model)
    if workers.first:
        with TrainingFolder.making(folder) as made:
            made.write_config(config)
            made.write_record(made.splits, splits.record())
            save_weights(model, made.start)
            if plan is not None:
                made.write_bytes(made.plan if trainable is None else made.selecting_plan, plan.to_json())
    workers.agree(None)
    return TrainingFolder(folder)


def resume_training(folder: Path) -> TrainingFolder:
    """Opens the folder of an interrupted training.

    Raises:
        RunError: If the training does not exist, or is finished.
    """
    training = TrainingFolder.open(folder)
    if training.summary.is_file():
        raise RunError(f"The training in {str(folder)!r} is finished: its weights are {str(training.weights)!r}.")
    return training


def check_same_data(folder: TrainingFolder, splits: Splits) -> None:
    """Checks that the images are those of the training's start.

    Raises:
        RunError: If the split differs.
    """
    if read_record(folder.splits, SplitsRecord) != splits.record():
        raise RunError(
            f"{str(folder.splits)!r} differs from the current split: data.path holds other data than at the start of "
            "the training. Restore the data, or start a new training."
        )
