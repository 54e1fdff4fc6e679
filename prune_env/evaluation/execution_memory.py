"""The user's cache of execution settings that were chosen earlier on this machine."""

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from prune_env.common.errors import CacheWarning, RunError
from prune_env.common.files import atomic_write
from prune_env.common.records import read_record, to_file
from prune_env.common.versions import versions
from prune_env.evaluation.execution import ExecutionChoice, ExecutionRecord
from prune_env.evaluation.execution_options import Options


class RememberedExecution(ExecutionRecord):
    """A choice in the cache."""

    remedy = "The file is ignored, and the execution settings are measured anew."


def remember(facts: Mapping[str, Any], choice: ExecutionChoice) -> None:
    """Stores a choice for the next run with the same facts; does nothing if the file cannot be written."""
    with suppress(OSError, RuntimeError):  # RuntimeError: nobody knows the user's home
        place = _place(facts)
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, to_file(choice.record()))


def recall(facts: Mapping[str, Any], options: Options) -> ExecutionChoice | None:
    """Returns the stored choice; None if it is missing or damaged, or if the options do not allow it.

    Warns:
        CacheWarning: If the file is damaged; names the file.
    """
    try:
        place = _place(facts)
    except RuntimeError:  # nobody knows the user's home
        return None
    if not place.is_file():
        return None
    try:
        record = read_record(place, RememberedExecution)
    except RunError as error:
        warnings.warn(str(error), CacheWarning, stacklevel=2)
        return None
    fits = all(getattr(record.execution, key) in values for key, values in options.items())
    return ExecutionChoice(record.execution, "remembered", agreement=record.agreement) if fits else None


def machine_name(device: torch.device) -> str:
    """Returns the model name of the GPU or CPU; for a CPU, also the number of processors."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} processors"


def _place(facts: Mapping[str, Any]) -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(root) if root else Path.home() / ".cache") / "prune_env" / "execution"
    whole = {**facts, "version": versions()["prune-env"], "torch": torch.__version__}
    return folder / f"{hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]}.json"
