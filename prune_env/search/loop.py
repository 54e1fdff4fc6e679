"""The loop that asks and tells any search, measures its plans in a pool, and notifies the listeners."""

import time
from collections import deque
from contextlib import nullcontext

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.trial import Trial
from prune_env.search.base import Search
from prune_env.search.callback import SearchCallback
from prune_env.search.episode import Episode, Listener, SearchResult
from prune_env.search.flight import Flight, Journal
from prune_env.search.pools import Pool
from prune_env.search.pools.make import make_pool
from prune_env.search.registry import SEARCHES, check_evaluations, check_named_search


def train_agent(
    problem: PruningProblem,
    config: RunConfig,
    listeners: tuple[Listener, ...] = (),
    pool: Pool | None = None,
    journal: Journal | None = None,
) -> SearchResult:
    """Runs the agent or search that the configuration names, for ``search.evaluations`` trials.

    Probes count as evaluations. A search with nothing left to try, or that a listener stops, ends earlier.

    Args:
        problem: The problem.
        config: The run's settings.
        listeners: Called after each plan that the search proposed; one that returns False stops the search. A
            `SearchCallback` also hears of the start and the end.
        pool: Measures the plans; stays open. None makes the pool that the settings name, and closes it.
        journal: Keeps outcomes that come before their turn; None for nothing.

    Returns:
        The best trial and the policy.

    Raises:
        ConfigError: If no search has the configured name, or if the evaluations do not suffice for it.
        RunError: If the search ends without trying a plan, or workers keep failing.
    """
    check_named_search(config)
    check_evaluations(problem, config)
    search = SEARCHES.find(config.agent.name)(problem, config)
    with nullcontext(pool) if pool is not None else make_pool(problem, config) as measuring:
        flight = Flight(problem, measuring, journal)
        watcher = _Watcher(config, search, listeners, flight)
        callbacks = [listener for listener in listeners if isinstance(listener, SearchCallback)]
        for callback in callbacks:
            callback.on_start(search)
        problem.listeners.append(watcher.hear)
        try:
            _Loop(problem, config, search, flight, watcher).run()
        finally:
            problem.listeners.remove(watcher.hear)
    if watcher.best is None:
        raise RunError(
            f"agent.name: the search {config.agent.name!r} ended without trying a plan. Choose another search."
        )
    result = SearchResult(watcher.best, search.policy, watcher.episodes, watcher.seconds)
    for callback in callbacks:
        callback.on_end(result)
    return result


class _Loop:
    """Asks and tells one search by number alone, so that neither workers nor timing change what it proposes."""

    def __init__(
        self, problem: PruningProblem, config: RunConfig, search: Search, flight: Flight, watcher: "_Watcher"
    ) -> None:
        self.problem = problem
        self.search = search
        self.flight = flight
        self.watcher = watcher
        self.name = config.agent.name
        self.lag = config.search.lag
        self.asked = self.told = 0

    def run(self) -> None:
        if self.search.probes and self.problem.probes and not self.problem.probed:
            self._probe()
        most = self.watcher.evaluations - self.watcher.trials
        proposals: deque[Proposal] = deque()
        ended = False
        while True:
            while not ended and self.asked < most and self._may_ask():
                proposal = self.search.ask()
                if proposal is None:
                    ended = True
                    break
                if proposal.widths is not None:
                    self.problem.budget.refuse_widths(f"agent.name={self.name}")
                self.flight.submit(proposal, self.name)
                proposals.append(proposal)
                self.asked += 1
            if not proposals:
                return
            trial = self.flight.conclude()
            if self.watcher.stopped:
                return
            self.told += 1
            proposal = proposals.popleft()
            # No proposal depends on the last outcome: learning from it would be wasted time.
            if self.told < most:
                self.search.tell(proposal, trial)

    def _probe(self) -> None:
        """Measures the probes, as many at once as there are workers."""
        probes = self.problem.probe_proposals()
        for proposal in probes:
            self.flight.submit(proposal, "probe")
        self.problem.loss_rises = self.problem.rises_of([self.flight.conclude() for _ in probes])

    def _may_ask(self) -> bool:
        """Whether exactly the outcomes that the next proposal may depend on have been told."""
        independent = self.search.independent
        known = self.asked - self.lag + 1
        if self.asked >= independent:
            return self.told >= max(known, independent)
        if self.problem.race is not None:
            # A race stops a plan by the outcomes before it, so these must be the same ones each time.
            return self.told >= known
        # How many are in flight changes nothing here. A second one for each worker hides the way to it and back.
        return self.asked - self.told < max(self.lag, 2 * self.flight.pool.size if self.flight.pool.size > 1 else 1)


class _Watcher:
    """Counts a search's trials, keeps the best trial, and notifies the listeners."""

    def __init__(self, config: RunConfig, search: Search, listeners: tuple[Listener, ...], flight: Flight) -> None:
        self.evaluations = config.search.evaluations
        self.name = config.agent.name
        self.search = search
        self.listeners = listeners
        self.flight = flight
        self.started = time.perf_counter()
        self.earlier = 0.0
        self.trials = 0
        self.episodes = 0
        self.best: Trial | None = None
        self.stopped = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started + self.earlier

    def _of_workers(self) -> dict[str, float]:
        """Numbers about the workers, where there are any besides this process."""
        status = self.flight.pool.status()
        if not status:
            return {}
        now = {**status, "in_flight": self.flight.ordered, "evaluations_per_second": self.trials / self.seconds}
        return {f"workers/{name}": float(value) for name, value in now.items()}

    def hear(self, trial: Trial) -> None:
        self.trials += 1
        # Measured before this process, or by another search: the seconds belong to this search all the same.
        self.earlier += trial.seconds if trial.recalled or trial.borrowed else 0.0
        if trial.proposed_by != self.name:
            return
        if self.best is None or trial.reward > self.best.reward:
            self.best = trial
        others = self.trials - self.episodes - 1
        of = self.evaluations - others
        scalars = {**self.search.scalars, **self._of_workers()}
        episode = Episode(self.episodes, of, trial, self.best, scalars, self.seconds)
        self.episodes += 1
        # Each listener hears every episode, also where another one stops the search.
        answers = [listener(episode, self.search) for listener in self.listeners]
        self.stopped = any(answer is False for answer in answers)
