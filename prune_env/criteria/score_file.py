"""Scores on disk: what a criterion found, with the network, the images and the settings that it found it for."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prune_env.common.errors import RunError
from prune_env.common.files import atomic_write
from prune_env.common.fingerprint import weights_digest
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import criterion_named
from prune_env.data import tensors_of
from prune_env.walk import Scores


def load_scores(name: str, context: ScoringContext, path: Path) -> Scores | None:
    """A criterion's scores from a file.

    Args:
        name: A registered criterion.
        context: The network, and the images where it needs any.
        path: The file.

    Returns:
        The scores; None where there is no such file, or it is of other weights, images, or another seed or release.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("facts") != _facts(name, context):
                return None
            scores = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (OSError, safetensors.SafetensorError):
        return None
    fits = all(unit.name in scores and scores[unit.name].shape == (unit.channels,) for unit in context.walk.units)
    return scores if fits and all(np.isfinite(values).all() for values in scores.values()) else None


def save_scores(name: str, context: ScoringContext, scores: Scores, path: Path) -> None:
    """Keeps scores in a file, whole or not at all.

    Raises:
        RunError: If it cannot be written.
    """
    values = {unit: np.ascontiguousarray(found, dtype=np.float64) for unit, found in scores.items()}
    try:
        atomic_write(path, safetensors.numpy.save(values, {"facts": _facts(name, context)}))
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def _facts(name: str, context: ScoringContext) -> str:
    """Everything that the scores depend on."""
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
