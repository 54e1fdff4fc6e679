"""Scores on disk, with a digest of the network, the images and the settings that the scores depend on."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prune_env.common.errors import RunError
from prune_env.common.files import atomic_write, in_words
from prune_env.common.fingerprint import weights_digest
from prune_env.common.records import Record
from prune_env.common.tensor_records import read_tensor_file, to_tensor_file
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import criterion_named
from prune_env.data import tensors_of
from prune_env.walk import Scores


class ScoresRecord(Record):
    """The header of ``scores.safetensors``.

    Attributes:
        facts: A digest of everything that the scores depend on.
    """

    remedy = "Remove the file; the run then scores the channels again."

    facts: str


def load_scores(name: str, context: ScoringContext, path: Path) -> Scores | None:
    """Reads a criterion's scores from a file.

    Args:
        name: A registered criterion.
        context: The network, and images if the criterion needs images.
        path: The file.

    Returns:
        The scores; None if the file is missing, or is for other weights, images, seed or release.

    Raises:
        RunError: If the file is damaged.
    """
    if not path.is_file():
        return None
    record, tensors = read_tensor_file(path, ScoresRecord, earlier=dict)
    if record.facts != _facts(name, context):
        return None
    scores = {unit: values.numpy() for unit, values in tensors.items()}
    fits = all(unit.name in scores and scores[unit.name].shape == (unit.channels,) for unit in context.walk.units)
    return scores if fits and all(np.isfinite(values).all() for values in scores.values()) else None


def save_scores(name: str, context: ScoringContext, scores: Scores, path: Path) -> None:
    """Writes scores to a file, whole or not at all.

    Raises:
        RunError: If the file cannot be written.
    """
    tensors = {unit: torch.from_numpy(np.array(values, dtype=np.float64)) for unit, values in scores.items()}
    try:
        atomic_write(path, to_tensor_file(ScoresRecord(facts=_facts(name, context)).as_record(), tensors))
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {in_words(error)}") from None


def _facts(name: str, context: ScoringContext) -> str:
    """Returns a digest of everything that the scores depend on."""
    criterion = criterion_named(name)
    facts: dict[str, Any] = {
        "release": importlib.metadata.version("prune-env"),
        "criterion": name,
        "free": [unit.name for unit in context.walk.free],
        "network": list(context.walk.fingerprint.items()),
        "weights": weights_digest(context.walk.model),
    }
    if criterion.needs != "weights":
        assert context.data is not None
        facts["images"] = _digest(context)
    if criterion.random:
        facts["seed"] = context.seed
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _digest(context: ScoringContext) -> str:
    assert context.data is not None
    digest = hashlib.sha256(context.data.images.contiguous().numpy().tobytes())
    for targets in tensors_of(context.data.targets):
        digest.update(targets.contiguous().numpy().tobytes())
    return digest.hexdigest()
