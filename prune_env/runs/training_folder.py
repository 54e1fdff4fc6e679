"""The folder of one training: it is made or found again, with all that the training can be resumed from."""

from pathlib import Path

from torch import nn

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.granularity import Trainable
from prune_env.models import save_weights
from prune_env.plan import PruningPlan
from prune_env.recover import Workers
from prune_env.runs.directory import RunDirectory


class TrainingFolder(RunDirectory):
    """The folder of one training: its settings, its checkpoint, its weights and its curves."""

    @property
    def checkpoint(self) -> Path:
        """What the training can be resumed from: the state after the last whole epoch."""
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
    """Makes the folder of a new training, with all that it can be resumed from.

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
