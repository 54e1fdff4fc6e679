"""The error of rewards, and suggestions for unknown names."""

import difflib
from collections.abc import Iterable


class RewardError(ValueError):
    """A reward that is unknown, has invalid settings, cannot be imported, or returned no finite number."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggests the nearest known name, ignoring case, and lists all known names.

    ``prune_env.common.errors`` has the same lines: rewards import nothing from the library, so that a reward can be
    written and tested without it.
    """
    names = sorted(known)
    lowered = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    listing = ", ".join(names) or "none"
    return f"did you mean {lowered[near[0]]!r}? (known: {listing})" if near else f"known: {listing}"
