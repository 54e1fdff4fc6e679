"""Action dimensions: the meaning of each number in [-1, 1] that an agent gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log
from types import MappingProxyType


@dataclass(frozen=True)
class ActionDimension:
    """One number of an action.

    Attributes:
        name: The quantity that the number decides, in words.
        decode: Maps the action in [-1, 1] and the builder's even keep ratio (`PlanBuilder.even`) to the requested
            number.
        encode: The inverse: maps the requested number and the even keep ratio to the action, not yet clipped to
            [-1, 1].
    """

    name: str
    decode: Callable[[float, float], float]
    encode: Callable[[float, float], float]


def linear(name: str, low: float, high: float) -> ActionDimension:
    """A dimension that maps the action -1 to ``low`` and 1 to ``high``, linearly."""
    span = high - low
    return ActionDimension(
        name,
        lambda action, _even: low + span * (action + 1.0) / 2.0,
        lambda number, _even: 2.0 * (number - low) / span - 1.0 if span else 0.0,
    )


KEEP: Mapping[str, ActionDimension] = MappingProxyType(
    {
        "share": ActionDimension(
            "keep ratio",
            lambda action, even: even * exp(action),
            lambda keep, even: log(keep / max(even, 1e-9)),
        ),
        "ratio": linear("keep ratio", 0.0, 1.0),
    }
)
"""Dimensions of the keep ratio, by the meaning of an action.

``ratio``: the keep ratio itself, as in AMC (He et al., ECCV 2018). ``share`` [our choice]: a factor, exp(-1) to exp(1),
on the keep ratio that would spend the rest of the budget evenly; action 0 for every unit gives the uniform plan.
"""
