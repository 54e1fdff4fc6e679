"""The numeric settings of rewards, and their allowed values."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prune_env.rewards.errors import RewardError, suggest


@dataclass(frozen=True)
class Setting:
    """A numeric setting of a reward.

    Attributes:
        low: Least value.
        high: Greatest allowed value; infinity for no limit.
        meaning: The meaning of the number, with its unit.
        above_low: Whether ``low`` itself is not allowed.
    """

    low: float
    high: float
    meaning: str
    above_low: bool = False

    @property
    def interval(self) -> str:
        """The allowed values, for example ``(0, 1]``."""
        end = "inf)" if math.isinf(self.high) else f"{self.high:g}]"
        return f"{'(' if self.above_low else '['}{self.low:g}, {end}"

    def allows(self, value: object) -> bool:
        """Whether the value is a finite number in the interval."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.above_low and value == self.low)


def check_settings(
    name: str, given: Mapping[str, object], known: Mapping[str, Setting], required: Collection[str]
) -> None:
    """Checks that the settings of a reward are known, complete and in range.

    Args:
        name: The reward's name, for the message.
        given: The user's settings.
        known: The reward's settings.
        required: Names of the settings without a default.

    Raises:
        RewardError: If a setting is unknown, missing or out of range. The message names every problem and all settings
            with their ranges.
    """
    problems = [f"unknown setting {key!r}, {suggest(key, known)}" for key in given if key not in known]
    problems += [f"setting {key!r} is required" for key in sorted(required) if key not in given]
    problems += [
        f"{key} = {given[key]!r} is not a number in {setting.interval}"
        for key, setting in known.items()
        if key in given and not setting.allows(given[key])
    ]
    if problems:
        allowed = "; ".join(f"{key} in {setting.interval}: {setting.meaning}" for key, setting in known.items())
        raise RewardError(f"reward {name!r}: {'; '.join(problems)}. Its settings: {allowed or 'none'}")
