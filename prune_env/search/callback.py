"""Callbacks of a search: they watch it from start to end, and can stop it."""

from prune_env.search.base import Search
from prune_env.search.episode import Episode, SearchResult


class SearchCallback:
    """Watches a search, with the life cycle of Stable-Baselines3's callbacks: start, each episode, end.

    Override what is needed; every method does nothing here.

    Example:
        >>> class UntilLossless(SearchCallback):
        ...     "Stops as soon as a plan is as good as the dense network."
        ...
        ...     def on_start(self, search):
        ...         self.dense = search.problem.baseline.quality
        ...
        ...     def on_episode(self, episode):
        ...         return episode.best.outcome.quality < self.dense
    """

    def on_start(self, search: Search) -> None:
        """Called once, before the first plan is proposed; ``search.problem`` has the dense network's outcome."""

    def on_episode(self, episode: Episode) -> bool:  # noqa: ARG002
        """Called after each plan that the search proposed; returning False stops the search."""
        return True

    def on_end(self, result: SearchResult) -> None:
        """Called once with the result, also of a search that was stopped; not after an error."""

    def __call__(self, episode: Episode, search: Search) -> bool:  # noqa: ARG002
        """Calls `on_episode`: a callback is a listener, too."""
        return self.on_episode(episode)
