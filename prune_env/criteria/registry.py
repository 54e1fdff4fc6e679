"""The registry of criteria: a dict and a decorator."""

from collections.abc import Callable

import numpy as np

from prune_env.errors import ConfigError, UserError, suggest
from prune_env.walk import LayerWalk, Scores

Criterion = Callable[[LayerWalk], Scores]
"""Gives each unit of a walk one score per channel [channels], float64; the higher, the sooner it is kept."""

_CRITERIA: dict[str, Criterion] = {}


def register_criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Makes a criterion known under a name."""

    def register(criterion: Criterion) -> Criterion:
        _CRITERIA[name] = criterion
        return criterion

    return register


def known_criteria() -> list[str]:
    """The names of all criteria."""
    return sorted(_CRITERIA)


def score_channels(name: str, walk: LayerWalk) -> Scores:
    """Scores every unit's channels.

    Args:
        name: A registered criterion.
        walk: The network's walk.

    Raises:
        ConfigError: If there is no such criterion.
        UserError: If a score is not a finite number; names the unit.
    """
    if name not in _CRITERIA:
        raise ConfigError(f"criterion.name: there is no criterion {name!r}; {suggest(name, _CRITERIA)}.")
    scores = _CRITERIA[name](walk)
    for unit, values in scores.items():
        if not np.isfinite(values).all():
            raise UserError(f"Criterion {name!r} gave unit {unit!r} a score that is not finite. Check its weights.")
    return scores
