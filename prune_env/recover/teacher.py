"""The teacher: a network whose outputs for an epoch's batches are computed once for all trainings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ConfigError, RunError
from prune_env.common.files import atomic_write
from prune_env.common.fingerprint import weights_digest
from prune_env.common.records import Record
from prune_env.common.tensor_records import read_tensor_file, to_tensor_file
from prune_env.data import Batch
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover.batches import Batches

LARGEST_EPOCH = 32 * 2**20
"""Most bytes of outputs that are kept of an epoch: ten classes and 50,000 images take 1 MB."""

FORMAT = 2
"""The format of a file of answers; those of another format are not found, and computed again."""


class Teacher:
    """A network whose outputs another network imitates.

    An epoch's images, their order and their augmentation follow from the seed and the epoch's number (`Batches`). So
    trainings that differ only in their network, or in how it learns, ask the same questions. The answers are computed
    once and kept as half floats. They are rounded for the first training, too, so that it makes no difference which
    training is first. Outputs that are not one tensor with a row for each image, such as a detector's, are not
    kept, nor are those for images that the data set itself varies.

    Args:
        model: The network; it is moved to the device and into the layout of the training.
        folder: Folder of the answers, one file for each epoch; None keeps none.
    """

    def __init__(self, model: nn.Module, folder: Path | None = None) -> None:
        self.model = model
        self.folder = folder
        self.digest = weights_digest(model)

    def prepare(self, device: torch.device, execution: ExecutionSettings) -> None:
        """Moves the network to a device and into a layout, in eval mode."""
        self.model.to(device).to(memory_format=execution.memory_format).eval()

    def lesson(self, number: int, batches: Batches, execution: ExecutionSettings) -> "Lesson":
        """The answers for the batches of an epoch.

        Args:
            number: The epoch, from 1.
            batches: The training images.
            execution: Execution settings of the teacher's forward passes.

        Raises:
            RunError: If the file of the epoch is damaged.
        """
        file = None
        if self.folder is not None and batches.repeatable:
            file = self.folder / f"{self._name(batches, execution)}-{number:04d}.safetensors"
        return Lesson(self.model, batches, execution, file)

    def _name(self, batches: Batches, execution: ExecutionSettings) -> str:
        """A digest of everything that the answers depend on, besides the epoch."""
        facts: Mapping[str, Any] = {
            "format": FORMAT,
            "teacher": self.digest,
            "source": batches.source.name,
            "images": hashlib.sha256(batches.indices.tobytes()).hexdigest(),
            "seed": batches.seed,
            "batch": [batches.batch_size, batches.steps, batches.workers.rank, batches.workers.processes],
            "augmentation": batches.augmentation,
            "execution": [execution.layout, execution.dtype, batches.workers.device.type, torch.get_num_threads()],
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class Ensemble(nn.Module):
    """Several networks as one teacher: the mean of their outputs, which must be tensors [our choice].

    Args:
        networks: The networks, one or more.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """The mean output for images [N, C, H, W].

        Raises:
            ConfigError: If an output is not a tensor.
        """
        outputs = [network(images) for network in self.networks]
        if not all(isinstance(one, Tensor) for one in outputs):
            raise ConfigError(
                "finetune.teachers: given, but a network's output is not one tensor, so there is no mean of several. "
                "Give no teachers."
            )
        return torch.stack(outputs).mean(0)


class Lesson:
    """The teacher's answers for the batches of one epoch, in order; made by `Teacher.lesson`."""

    def __init__(self, model: nn.Module, batches: Batches, execution: ExecutionSettings, file: Path | None) -> None:
        self._model = model
        self._batches = batches
        self._execution = execution
        self._file = file
        self._known = _read(file, len(batches)) if file is not None and file.is_file() else None
        self._new: list[Tensor] = []

    def outputs(self, step: int, batch: Batch) -> Any:
        """The teacher's outputs for a batch; a tensor is float32, rounded to half floats.

        Args:
            step: Number of the batch in the epoch, from 1.
            batch: The batch.

        Raises:
            OSError: If the file of the epoch cannot be written.
        """
        device = self._batches.workers.device
        if self._known is not None:
            known = self._known[step - 1]
            if len(known) != len(batch.images):
                raise _unfit(self._file, f"answers for {len(known)} images a batch, not {len(batch.images)}")
            return known.to(device).float()
        with torch.no_grad(), self._execution.casting(device):
            outputs = self._batches.task.forward(self._model, batch)
        if not isinstance(outputs, Tensor) or len(outputs) != len(batch.images):
            return outputs
        rounded = outputs.half()
        if self._file is not None and rounded.nbytes * len(self._batches) <= LARGEST_EPOCH:
            self._new.append(rounded.cpu())
            if len(self._new) == len(self._batches):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self._file, to_tensor_file({}, {"answers": torch.stack(self._new)}))
        return rounded.float()


class LessonRecord(Record):
    """The header of a file of answers."""

    remedy = "Remove it; the teacher computes its outputs again."


def _read(file: Path, steps: int) -> Tensor:
    """The answers of an epoch, half floats [steps, images, ...]."""
    _, tensors = read_tensor_file(file, LessonRecord, earlier=_refuse)
    answers = tensors.get("answers")
    if answers is None or answers.ndim < 3 or len(answers) != steps or answers.dtype != torch.float16:
        raise _unfit(file, f"answers for other batches than the {steps} of an epoch")
    return answers


def _refuse(_header: Mapping[str, str]) -> Mapping[str, Any]:
    raise ValueError("it has no record")


def _unfit(file: Path | None, what: str) -> RunError:
    return RunError(f"{str(file)!r} holds {what}. {LessonRecord.remedy}")
