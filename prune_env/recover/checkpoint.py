"""Checkpoint of a training: one safetensors file; its header holds the finished epochs and the training's facts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from torch import Tensor

from prune_env.common.errors import RunError
from prune_env.common.records import Record
from prune_env.common.tensor_records import read_tensor_file, read_tensor_header, to_tensor_file
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover.trainer import Epoch, Trainer
from prune_env.tasks import Task, quality_of


class CheckpointRecord(Record):
    """The header of a checkpoint.

    Attributes:
        epochs: Results of the finished epochs.
        execution: Execution settings of the steps.
        facts: Values that must be equal when the training is resumed.
    """

    remedy = "Move its folder away and start the training again."

    epochs: list[Epoch]
    execution: ExecutionSettings
    facts: dict[str, JsonValue]


def to_checkpoint(trainer: Trainer, epochs: Sequence[Epoch], facts: Mapping[str, Any]) -> bytes:
    """Serialises a training to the bytes of a checkpoint file.

    Args:
        trainer: The trainer after the last of the epochs.
        epochs: Results of the finished epochs.
        facts: JSON values that must be equal when the training is resumed, such as settings and seed.
    """
    record = {
        "epochs": [asdict(epoch) for epoch in epochs],
        "execution": asdict(trainer.execution),
        "facts": json.loads(json.dumps(facts)),
    }
    return to_tensor_file(record, trainer.state())


def read_checkpoint(
    path: Path, facts: Mapping[str, Any], task: Task
) -> tuple[dict[str, Tensor], list[Epoch], ExecutionSettings]:
    """Reads the trainer's state, the finished epochs, and the execution settings of the steps.

    Args:
        path: The file.
        facts: As `to_checkpoint`.
        task: Task of the network.

    Raises:
        RunError: If the file is damaged, or belongs to a training with other facts.
    """
    record, state = read_checkpoint_record(path, quality_of(task).name)
    current = json.loads(json.dumps(facts))
    differing = [key for key in current if not _agree(current[key], record.facts.get(key))]
    if differing:
        raise RunError(
            f"the checkpoint {str(path)!r} belongs to a training with other {', '.join(differing)}. Resume with the "
            "values that the training was started with, or start a new training."
        )
    return state, record.epochs, record.execution


def epochs_in(path: Path, task: Task) -> list[Epoch]:
    """Reads the finished epochs alone, without the trainer's state.

    Args:
        path: The file; an empty list if it does not exist.
        task: Task of the network.

    Raises:
        RunError: If the file is damaged.
    """
    if not path.is_file():
        return []
    earlier = partial(_earlier, quality=quality_of(task).name)
    return read_tensor_header(path, CheckpointRecord, earlier=earlier).epochs


def read_checkpoint_record(path: Path, quality: str) -> tuple[CheckpointRecord, dict[str, Tensor]]:
    """Reads the header and the tensors of a checkpoint.

    Args:
        path: The file.
        quality: The task's name for its quality, which earlier releases wrote.

    Raises:
        RunError: If the file is damaged.
    """
    return read_tensor_file(path, CheckpointRecord, earlier=partial(_earlier, quality=quality))


def _earlier(header: Mapping[str, str], quality: str) -> dict[str, Any]:
    """The record of an earlier release's header, an entry for each field.

    The quality had the task's name for it; of the execution settings, the first releases recorded only layout and
    number type, as ``passes``.
    """
    epochs = [
        {"quality" if key == quality else key: value for key, value in epoch.items()}
        for epoch in json.loads(header["epochs"])
    ]
    if "execution" in header:
        execution = json.loads(header["execution"])
    else:
        execution = asdict(ExecutionSettings.for_training(**json.loads(header["passes"])))
    return {"epochs": epochs, "execution": execution, "facts": json.loads(header["facts"])}


def _agree(current: Any, recorded: Any) -> bool:
    """Whether two facts are equal; ignores recorded settings that this release no longer has."""
    if isinstance(current, dict) and isinstance(recorded, dict):
        return all(key in recorded and recorded[key] == value for key, value in current.items())
    return bool(current == recorded)
