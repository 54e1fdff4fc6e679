"""A training's checkpoint: one safetensors file, the epochs so far and what it depends on in its header."""

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
    """A checkpoint as the bytes of a file.

    Args:
        trainer: The trainer after the last of the epochs.
        epochs: What each epoch came to.
        facts: What a training that is taken up must have in common with this one, as JSON can hold it.
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
    """The trainer's state, the epochs so far, and how its steps ran.

    Args:
        path: The file.
        facts: As `to_checkpoint`.
        task: What the network is for.

    Raises:
        RunError: If the file is damaged, or of a training with other facts.
    """
    # Whatever the reader raises on a damaged file, the file is refused.
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
        epochs = [Epoch.from_record(record, task) for record in json.loads(header["epochs"])]
        execution = _execution(header)
        theirs = {**json.loads(header["facts"])}
        state = safetensors.torch.load_file(path)
    except Exception as error:
        raise RunError(
            f"the checkpoint {str(path)!r} is damaged or of another release ({type(error).__name__}). Move its folder "
            "away and start anew."
        ) from error
    ours = json.loads(json.dumps(facts))
    differing = [key for key in ours if not _agree(ours[key], theirs.get(key))]
    if differing:
        raise RunError(
            f"{str(path)!r} is of a training with other {', '.join(differing)}. Go on with what it was started with, "
            "or start a new one."
        )
    return state, epochs, execution


def _execution(header: Mapping[str, str]) -> ExecutionSettings:
    """How the steps ran; earlier releases recorded layout and number type alone, as ``passes``."""
    if "execution" in header:
        return ExecutionSettings(**json.loads(header["execution"]))
    return ExecutionSettings.for_training(**json.loads(header["passes"]))


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether two facts are equal; settings that this release does not have any more do not count."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(key in theirs and theirs[key] == value for key, value in ours.items())
    return bool(ours == theirs)
