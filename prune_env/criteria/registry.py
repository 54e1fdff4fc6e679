"""The registry of criteria, and the one way to run one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from prune_env.common.errors import ConfigError, UserError
from prune_env.common.registry import Registry
from prune_env.criteria.context import ScoringContext
from prune_env.walk import LayerWalk, Scores

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


def as_registered(name: str, criterion: Any) -> Registered:
    """A criterion of the user's own with what it says of itself by its attributes ``needs`` and ``random``.

    One that says nothing is taken to look at everything [our choice]: its scores are found anew where images, targets
    or the seed differ.

    Args:
        name: What the criterion is called in messages.
        criterion: The criterion; where it was registered, the registration speaks for it.

    Raises:
        ConfigError: If ``needs`` is something else than one of `Needs`.
    """
    for known in CRITERIA.values():
        if known.score is criterion:
            return known
    needs: Any = getattr(criterion, "needs", "targets")
    if needs not in get_args(Needs):
        allowed = ", ".join(map(repr, get_args(Needs)))
        raise ConfigError(f"criterion {name!r}: its attribute needs is {needs!r}; allowed are {allowed}.")
    return Registered(criterion, needs, bool(getattr(criterion, "random", True)))


CRITERIA: Registry[Registered] = Registry(
    "criterion", "criterion.name", adopt=as_registered, documented=lambda known: known.score
)


def register_criterion(name: str, needs: Needs = "weights", random: bool = False) -> Callable[[Criterion], Criterion]:
    """Makes a criterion known under a name.

    Args:
        name: What ``criterion.name`` calls it.
        needs: ``weights`` where the network suffices, ``images`` or ``targets`` where it looks at these.
        random: Whether the seed matters.

    Raises:
        ValueError: If the name is taken.
    """

    def register(criterion: Criterion) -> Criterion:
        CRITERIA.add(name, Registered(criterion, needs, random))
        return criterion

    return register


def known_criteria() -> list[str]:
    """The names of all criteria, sorted."""
    return sorted(CRITERIA)


def criterion_named(name: str, setting: str | None = None) -> Registered:
    """The criterion of a name, or what ``package.module:callable`` imports.

    Args:
        name: What was given.
        setting: What gave it, for messages; None for ``criterion.name``.

    Raises:
        ConfigError: If there is none; offers the nearest.
    """
    return CRITERIA.find(name, setting)


def score_channels(name: str, context: ScoringContext) -> Scores:
    """Scores every unit's channels.

    Args:
        name: A registered criterion, or ``package.module:callable``.
        context: The network, and the images where it needs any.

    Returns:
        For each unit of the walk, float64 [channels].

    Raises:
        ConfigError: If there is no such criterion, or it needs images or targets and has none.
        UserError: If a unit has no score for each of its channels, or a score is not a finite number; names the unit.
    """
    return run_criterion(name, criterion_named(name), context)


def run_criterion(name: str, criterion: Registered, context: ScoringContext) -> Scores:
    """As `score_channels`, with the criterion itself; the name is for messages."""
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
        found = criterion.score(context)
    scores = _of_every_channel(name, found, context.walk)
    _refuse_unfinite(name, scores)
    return scores


def _of_every_channel(name: str, found: object, walk: LayerWalk) -> Scores:
    """The scores as float64 arrays; refused where a unit lacks one for each of its channels."""
    if not isinstance(found, Mapping):
        raise UserError(
            f"Criterion {name!r} gave {type(found).__name__}. It must give a mapping of unit names to arrays of scores."
        )
    scores = {}
    for unit in walk.units:
        wanted = (
            f"It must give each unit of context.walk.units an array of one score per channel, here {unit.channels}."
        )
        if unit.name not in found:
            raise UserError(f"Criterion {name!r} gave unit {unit.name!r} no scores. {wanted}")
        try:
            scores[unit.name] = np.asarray(found[unit.name], dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"Criterion {name!r} gave unit {unit.name!r} no numbers: {error}. {wanted}") from None
        if (shape := scores[unit.name].shape) != (unit.channels,):
            raise UserError(f"Criterion {name!r} gave unit {unit.name!r} scores of shape {shape}. {wanted}")
    return scores


def _refuse_missing(name: str, needs: Needs, context: ScoringContext) -> None:
    images = 0 if context.data is None else len(context.data.images)
    targets = 0 if context.data is None else len(context.data.targets)
    if (needs == "images" and not images) or (needs == "targets" and not 0 < images == targets):
        enough = ", ".join(other for other in known_criteria() if CRITERIA.find(other).needs == "weights")
        own = " A criterion of your own may say that it looks at less: needs = 'weights'." if ":" in name else ""
        raise ConfigError(
            f"criterion.name: {name!r} looks at {'images with targets' if needs == 'targets' else needs}, and "
            f"{images} images with {targets} targets are given. Give a context some, or choose a criterion that needs "
            f"none: {enough}.{own}"
        )


def _refuse_unfinite(name: str, scores: Scores) -> None:
    for unit, values in scores.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"Criterion {name!r} gave unit {unit!r} a score that is not finite. Check the network's weights and "
                "the data's scaling."
            )
