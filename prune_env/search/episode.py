"""The records of a search: one for each episode, and the result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prune_env.env.trial import Trial
from prune_env.search.base import Search
from prune_env.search.policy import Policy


@dataclass(frozen=True)
class Episode:
    """One plan that the search proposed, as listeners receive it.

    Attributes:
        number: Index of the episode, from 0.
        of: Largest possible number of episodes.
        trial: The plan's trial.
        best: The best trial so far.
        scalars: The search's own values to plot, by TensorBoard tag.
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
    """The result of a search.

    Attributes:
        best: The best trial.
        policy: The deterministic policy at the end; None if the search learns none.
        episodes: How many plans the search proposed.
        seconds: Wall-clock seconds of the search; recalled trials count with their original seconds.
    """

    best: Trial
    policy: Policy | None
    episodes: int
    seconds: float


Listener = Callable[[Episode, Search], object]
"""Called after each plan that a search proposed; one that returns False stops the search."""
