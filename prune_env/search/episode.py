"""What a search tells of itself: an episode, and the result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prune_env.env.trial import Trial
from prune_env.search.base import Search
from prune_env.search.policy import Policy


@dataclass(frozen=True)
class Episode:
    """What a listener hears after each plan that the search proposed.

    Attributes:
        number: From 0.
        of: How many there will be, at most.
        trial: The plan's trial.
        best: The best trial so far.
        scalars: What the search tells of itself, by TensorBoard tag.
        seconds: Wall-clock seconds since the search began.
    """

    number: int
    of: int
    trial: Trial
    best: Trial
    scalars: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The best trial.
        policy: The deterministic policy at the end; None for a search that learns none.
        episodes: How many plans the search proposed.
        seconds: Wall-clock seconds of the search; of what was recalled, those that it took then.
    """

    best: Trial
    policy: Policy | None
    episodes: int
    seconds: float


Listener = Callable[[Episode, Search], None]
