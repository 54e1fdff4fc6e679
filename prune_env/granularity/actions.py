"""Actions: numbers in [-1, 1] that an agent gives, and what each of them asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log
from types import MappingProxyType


@dataclass(frozen=True)
class ActionDimension:
    """One number of an action.

    Attributes:
        name: What it decides.
        decode: From the action in [-1, 1] and the builder's even keep ratio to the number that is asked for.
        encode: The other way round; what it gives is clipped to [-1, 1].
    """

    name: str
    decode: Callable[[float, float], float]
    encode: Callable[[float, float], float]


def linear(name: str, low: float, high: float) -> ActionDimension:
    """A number that is ``low`` at -1 and ``high`` at 1, evenly between."""
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
"""Keep ratios by what an action means: ``ratio`` as in AMC (He et al., ECCV 2018); ``share`` [our choice] multiplies
the ratio that would spend the rest of the budget evenly by exp(-1) to exp(1), so that 0 everywhere is the uniform
plan."""
