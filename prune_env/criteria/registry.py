"""The registry of criteria, and the function that runs a criterion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from prune_env.common.errors import ConfigError, UserError
from prune_env.common.layers import Transposed
from prune_env.common.registry import Registry
from prune_env.criteria.context import ScoringContext
from prune_env.walk import LayerWalk, Scores

Criterion = Callable[[ScoringContext], Scores]
"""Returns one score per channel for each unit of a walk, float64 [channels]; higher scores are kept first."""

Needs = Literal["weights", "images", "targets"]


@dataclass(frozen=True)
class Registered:
    """A criterion, and the data that it needs.

    Attributes:
        score: The criterion.
        needs: ``weights`` if the network suffices, ``images``, or ``targets`` for images with targets.
        random: Whether the scores depend on the seed.
    """

    score: Criterion
    needs: Needs
    random: bool


def as_registered(name: str, criterion: Any) -> Registered:
    """Wraps a user's own criterion, and reads its attributes ``needs`` and ``random``.

    Without the attributes, the criterion counts as random and as needing targets [our choice]: its scores are computed
    anew when images, targets or the seed change.

    Args:
        name: The criterion's name in messages.
        criterion: The criterion; a registered criterion keeps its registration.

    Raises:
        ConfigError: If ``needs`` is not one of `Needs`.
    """
    for known in CRITERIA.values():
        if known.score is criterion:
            return known
    needs: Any = getattr(criterion, "needs", "targets")
    if needs not in get_args(Needs):
        allowed = ", ".join(map(repr, get_args(Needs)))
        raise ConfigError(f"Criterion {name!r}: its attribute needs is {needs!r}; allowed are {allowed}.")
    return Registered(criterion, needs, bool(getattr(criterion, "random", True)))


CRITERIA: Registry[Registered] = Registry(
    "criterion", "criterion.name", adopt=as_registered, documented=lambda known: known.score
)


def register_criterion(name: str, needs: Needs = "weights", random: bool = False) -> Callable[[Criterion], Criterion]:
    """Registers a criterion under a name.

    Args:
        name: The criterion's value of ``criterion.name``.
        needs: ``weights`` if the network suffices, ``images``, or ``targets`` for images with targets.
        random: Whether the scores depend on the seed.

    Raises:
        ValueError: If the name is taken.
    """

    def register(criterion: Criterion) -> Criterion:
        CRITERIA.add(name, Registered(criterion, needs, random))
        return criterion

    return register


def known_criteria() -> list[str]:
    """Returns the names of all criteria, sorted."""
    return sorted(CRITERIA)


def criterion_named(name: str, setting: str | None = None) -> Registered:
    """Returns a registered criterion, or imports one by ``package.module:callable``.

    Args:
        name: The name.
        setting: The setting that gave the name, for messages; None for ``criterion.name``.

    Raises:
        ConfigError: If no criterion has the name; offers the nearest name.
    """
    return CRITERIA.find(name, setting)


def score_channels(name: str, context: ScoringContext) -> Scores:
    """Scores every unit's channels.

    Args:
        name: A registered criterion, or ``package.module:callable``.
        context: The network, and images if the criterion needs images.

    Returns:
        For each unit of the walk, float64 [channels]. A unit that a transposed convolution reads or writes has L1
        norms, whatever the criterion [our choice].

    Raises:
        ConfigError: If there is no such criterion, or if the images or targets that it needs are missing.
        UserError: If a channel of a unit has no score, or a score is not finite; names the unit.
    """
    return run_criterion(name, criterion_named(name), context)


def run_criterion(name: str, criterion: Registered, context: ScoringContext) -> Scores:
    """Scores channels as `score_channels` does, with a resolved criterion; the name is for messages."""
    _refuse_missing(name, criterion.needs, context)
    # Check the weights first to name the right unit: one weight that is not finite spoils the scores of many units.
    _refuse_unfinite(name, {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units})
    # Ranks and curvatures need float32 and gradients, whatever modes the caller has set.
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(torch.device(context.device).type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        result = criterion.score(context)
    scores = dict(_of_every_channel(name, result, context.walk))
    for unit in context.walk.units:
        if any(isinstance(context.walk.model.get_submodule(member.module), Transposed) for member in unit.members):
            # The criteria read weights with the outputs first; a transposed convolution has them second.
            scores[unit.name] = context.walk.magnitudes(unit)
    _refuse_unfinite(name, scores)
    return scores


def _of_every_channel(name: str, result: object, walk: LayerWalk) -> Scores:
    """Returns the scores as float64 arrays; refuses scores that do not cover every channel of every unit."""
    if not isinstance(result, Mapping):
        raise UserError(
            f"Criterion {name!r} gave {type(result).__name__}. "
            "It must give a mapping of unit names to arrays of scores."
        )
    scores = {}
    for unit in walk.units:
        wanted = (
            f"It must give each unit of context.walk.units an array of one score per channel, here {unit.channels}."
        )
        if unit.name not in result:
            raise UserError(f"Criterion {name!r} gave unit {unit.name!r} no scores. {wanted}")
        try:
            scores[unit.name] = np.asarray(result[unit.name], dtype=np.float64)
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
        own = " A criterion of your own can declare that it needs less: needs = 'weights'." if ":" in name else ""
        raise ConfigError(
            f"criterion.name: {name!r} needs {'images with targets' if needs == 'targets' else needs}, but "
            f"{images} images with {targets} targets are given. Give ScoringContext.data, or choose a criterion that "
            f"needs only weights: {enough}.{own}"
        )


def _refuse_unfinite(name: str, scores: Scores) -> None:
    for unit, values in scores.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"Criterion {name!r} gave unit {unit!r} a score that is not finite. Check the network's weights and "
                "the data's scaling."
            )
