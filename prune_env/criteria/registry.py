"""The registry of criteria: a dict and a decorator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from prune_env.common.errors import ConfigError, UserError, suggest
from prune_env.common.registry import import_named
from prune_env.criteria.context import ScoringContext
from prune_env.walk import Scores

Criterion = Callable[[ScoringContext], Scores]
"""Gives each unit of a walk one score per channel [channels], float64; the higher, the sooner it is kept."""

Needs = Literal["weights", "images", "targets"]


@dataclass(frozen=True)
class Registered:
    """A criterion and what is to be known of it before it runs.

    Attributes:
        score: The criterion.
        needs: ``weights`` where the network suffices, ``images`` or ``targets`` where it looks at these.
        random: Whether the seed matters.
    """

    score: Criterion
    needs: Needs
    random: bool


CRITERIA: dict[str, Registered] = {}


def register_criterion(name: str, needs: Needs = "weights", random: bool = False) -> Callable[[Criterion], Criterion]:
    """Makes a criterion known under a name.

    Args:
        name: What ``criterion.name`` calls it.
        needs: ``weights`` where the network suffices, ``images`` or ``targets`` where it looks at these.
        random: Whether the seed matters.
    """

    def register(criterion: Criterion) -> Criterion:
        CRITERIA[name] = Registered(criterion, needs, random)
        return criterion

    return register


def known_criteria() -> list[str]:
    """The names of all criteria."""
    return sorted(CRITERIA)


def criterion_named(name: str, setting: str = "criterion.name") -> Registered:
    """The criterion of a name, or what ``package.module:name`` imports.

    Args:
        name: A registered name, or where the criterion is imported from.
        setting: What gave the name, for messages.

    Raises:
        ConfigError: If there is none; offers the nearest.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    if ":" in name:
        found = import_named(name, f"{setting}: criterion")
        registered = next((known for known in CRITERIA.values() if known.score is found), None)
        # A criterion that is not registered may look at everything.
        return registered or Registered(found, "images", random=True)
    raise ConfigError(
        f"{setting}: there is no criterion {name!r}; {suggest(name, CRITERIA)}; or package.module:name for your own."
    )


def score_channels(name: str, context: ScoringContext) -> Scores:
    """Scores every unit's channels.

    Args:
        name: A registered criterion.
        context: The network, and the images where it needs any.

    Raises:
        ConfigError: If there is no such criterion, or it needs images or targets and has none.
        UserError: If a score is not a finite number; names the unit.
    """
    criterion = criterion_named(name)
    _refuse_missing(name, criterion.needs, context)
    # One weight that is not finite spoils the scores of many units: the unit that has it is to be named.
    _refuse_unfinite(name, {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units})
    # Ranks and curvatures need float32 and gradients, whatever the caller has switched on.
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(torch.device(context.device).type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        scores = criterion.score(context)
    _refuse_unfinite(name, scores)
    return scores


def _refuse_missing(name: str, needs: Needs, context: ScoringContext) -> None:
    images = 0 if context.data is None else len(context.data.images)
    targets = 0 if context.data is None else len(context.data.targets)
    if (needs == "images" and not images) or (needs == "targets" and not 0 < images == targets):
        enough = ", ".join(other for other in known_criteria() if CRITERIA[other].needs == "weights")
        raise ConfigError(
            f"criterion.name: {name!r} looks at {'images with targets' if needs == 'targets' else needs}, and "
            f"{images} images with {targets} targets are given. Give a context some, or choose a criterion that needs "
            f"none: {enough}."
        )


def _refuse_unfinite(name: str, scores: Scores) -> None:
    for unit, values in scores.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"Criterion {name!r} gave unit {unit!r} a score that is not finite. Check the network's weights and "
                "the data's scaling."
            )
