"""What can be wrong with a reward, in words."""

import difflib
from collections.abc import Iterable


class RewardError(ValueError):
    """A reward that is unknown, wrongly set, cannot be imported, or whose value is no finite number."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Offers the nearest known name, whatever its case, and lists them all.

    ``prune_env.common.errors`` has the same few lines: rewards import nothing of ours, so that a reward can be
    written and tried without the library.
    """
    names = sorted(known)
    lowered = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    listing = ", ".join(names) or "none"
    return f"did you mean {lowered[near[0]]!r}? (known: {listing})" if near else f"known: {listing}"
