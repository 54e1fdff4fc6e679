"""The loop that runs any search on a problem and notifies the listeners."""

import time

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener, SearchResult
from prune_env.search.registry import SEARCHES, check_evaluations, check_named_search


def train_agent(problem: PruningProblem, config: RunConfig, listeners: tuple[Listener, ...] = ()) -> SearchResult:
    """Runs the agent or search that the configuration names, for ``search.evaluations`` trials.

    Probes count as evaluations. A search with nothing left to try ends earlier.

    Args:
        problem: The problem.
        config: The run's settings.
        listeners: Called after each plan that the search proposed.

    Returns:
        The best trial and the policy.

    Raises:
        ConfigError: If no search has the configured name, or if the evaluations do not suffice for it.
        RunError: If the search ends without trying a plan.
    """
    check_named_search(config)
    check_evaluations(problem, config)
    search = SEARCHES.find(config.agent.name)(problem, config)
    watcher = _Watcher(config, search, listeners)
    problem.listeners.append(watcher.hear)
    try:
        search.run(watcher.has_budget)
    finally:
        problem.listeners.remove(watcher.hear)
    if watcher.best is None:
        raise RunError(
            f"agent.name: the search {config.agent.name!r} ended without trying a plan. Choose another search."
        )
    return SearchResult(watcher.best, search.policy, watcher.episodes, watcher.seconds)


class _Watcher:
    """Counts a search's trials, keeps the best trial, and notifies the listeners."""

    def __init__(self, config: RunConfig, search: Search, listeners: tuple[Listener, ...]) -> None:
        self.evaluations = config.search.evaluations
        self.name = config.agent.name
        self.search = search
        self.listeners = listeners
        self.started = time.perf_counter()
        self.recalled = 0.0
        self.trials = 0
        self.episodes = 0
        self.best: Trial | None = None

    def has_budget(self) -> bool:
        return self.trials < self.evaluations

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started + self.recalled

    def hear(self, trial: Trial) -> None:
        self.trials += 1
        self.recalled += trial.seconds if trial.recalled else 0.0
        if trial.proposed_by != self.name:
            return
        if self.best is None or trial.reward > self.best.reward:
            self.best = trial
        others = self.trials - self.episodes - 1
        of = self.evaluations - others
        episode = Episode(self.episodes, of, trial, self.best, self.search.scalars, self.seconds)
        self.episodes += 1
        for listener in self.listeners:
            listener(episode, self.search)
