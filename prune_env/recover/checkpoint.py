"""Checkpoint of a training: one safetensors file; its header holds the finished epochs and the training's facts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from prune_env.common.errors import RunError
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover.trainer import Epoch, Trainer
from prune_env.tasks import Task


def to_checkpoint(trainer: Trainer, epochs: Sequence[Epoch], facts: Mapping[str, Any]) -> bytes:
    """Serialises a training to the bytes of a checkpoint file.

    Args:
        trainer: The trainer after the last of the epochs.
        epochs: Results of the finished epochs.
        facts: JSON values that must be equal when the training is resumed, such as settings and seed.
    """
    header = {
        "epochs": json.dumps([epoch.as_record(trainer.task) for epoch in epochs], allow_nan=False),
        "execution": json.dumps(asdict(trainer.execution)),
        "facts": json.dumps(facts, sort_keys=True),
    }
    return safetensors.torch.save(trainer.state(), header)


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
    # A damaged file can make the reader raise any exception.
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
        epochs = [Epoch.from_record(record, task) for record in json.loads(header["epochs"])]
        execution = _execution(header)
        recorded = {**json.loads(header["facts"])}
        state = safetensors.torch.load_file(path)
    except Exception as error:
        raise RunError(
            f"the checkpoint {str(path)!r} is damaged or was written by another release ({type(error).__name__}). "
            "Move its folder away and start the training again."
        ) from error
    current = json.loads(json.dumps(facts))
    differing = [key for key in current if not _agree(current[key], recorded.get(key))]
    if differing:
        raise RunError(
            f"the checkpoint {str(path)!r} belongs to a training with other {', '.join(differing)}. Resume with the "
            "values that the training was started with, or start a new training."
        )
    return state, epochs, execution


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
    # A damaged file can make the reader raise any exception.
    try:
        with safe_open(path, "pt") as file:
            return [Epoch.from_record(record, task) for record in json.loads(file.metadata()["epochs"])]
    except Exception as error:
        raise RunError(f"the checkpoint {str(path)!r} is damaged ({type(error).__name__}).") from error


def _execution(header: Mapping[str, str]) -> ExecutionSettings:
    """The execution settings of the steps; earlier releases recorded only layout and number type, as ``passes``."""
    if "execution" in header:
        return ExecutionSettings(**json.loads(header["execution"]))
    return ExecutionSettings.for_training(**json.loads(header["passes"]))


def _agree(current: Any, recorded: Any) -> bool:
    """Whether two facts are equal; ignores recorded settings that this release no longer has."""
    if isinstance(current, dict) and isinstance(recorded, dict):
        return all(key in recorded and recorded[key] == value for key, value in current.items())
    return bool(current == recorded)
