"""Whether a search keeps the promises that runs, comparisons and resumed runs rely on."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from prune_env.common.randomness import global_randomness
from prune_env.config import RunConfig
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search.base import Search
from prune_env.search.episode import Episode, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import Policy
from prune_env.search.pools import Arrival, Pool
from prune_env.search.pools.here import Here
from prune_env.search.registry import SEARCHES
from prune_env.testing.networks import small_problem
from prune_env.testing.promises import Snapshot, explained, require

PROPOSALS = 12
"""Plans that a search may propose after the probes."""

LAG = 3


def check_search(search: str | type[Search], overrides: Sequence[str] = ()) -> None:
    """Checks that a search keeps its promises, on a small problem; takes seconds.

    A search proposes at least one plan, each within the budget, and tries none by itself. It is a function of the
    problem, the settings and the outcomes that it is told, so that the same seed gives the same plans, an interrupted
    run goes on as if nothing had happened, and outcomes may come in any order. It reads probes only where it says
    ``probes``, and proposals that it calls ``independent`` are.

    Args:
        search: A registered name, ``package.module:class``, or the class itself.
        overrides: Settings of the run as ``key.path=value``, for example the agent's own.

    Raises:
        AssertionError: Says which promise is broken, and in which trial.
        ConfigError: If there is no such search, or a setting does not fit.

    Example:
        >>> from prune_env.testing import check_search
        >>> check_search("random")
    """
    with _named(search) as name:
        _Check(f"search {name!r}", name, SEARCHES.find(name), overrides).run()


@contextmanager
def _named(search: str | type[Search]) -> Iterator[str]:
    """A name that finds the search within."""
    if isinstance(search, str):
        yield search
        return
    known = {SEARCHES.find(name): name for name in SEARCHES}
    with SEARCHES.restored():
        name = known.get(search, search.__qualname__)
        if search not in known:
            SEARCHES.add(name, search)
        yield name


class LastFirst(Here):
    """A pool of four in which the order that came last is measured first."""

    size = 4

    def wait(self) -> Arrival:
        """Measures the latest order."""
        self._orders.rotate(1)
        return super().wait()


@dataclass(frozen=True)
class _Run:
    """The trials, episodes and result of one run of a search."""

    trials: Sequence[Trial]
    episodes: Sequence[Episode]
    result: SearchResult


@dataclass(frozen=True)
class _Check:
    """One search on fresh problems."""

    what: str
    name: str
    search: type[Search]
    overrides: Sequence[str]

    def run(self) -> None:
        require(
            self.search.probes or not self.search.needs_probes,
            f"{self.what} says needs_probes=True and probes=False. A search that needs probes makes them.",
        )
        problem = small_problem()
        evaluations = PROPOSALS + (problem.probes if self.search.probes else 0)
        before, scores = Snapshot(problem.walk.model), {key: value.copy() for key, value in problem.scores.items()}
        whole = self._run(problem, evaluations, noise=0)
        changed = before.difference()
        require(changed is None, f"{self.what}: {changed}.")
        same = all(np.array_equal(problem.scores[unit], values) for unit, values in scores.items())
        require(same, f"{self.what}: it changes the problem's scores; work on a copy.")
        self._check_trials(problem, whole)
        self._check_repetition(whole, evaluations)
        self._check_resuming(whole, evaluations)
        self._check_order(evaluations)
        self._run(small_problem(), evaluations - PROPOSALS + 1, noise=0)
        self._check_told(problem, whole)

    def _check_trials(self, problem: PruningProblem, whole: _Run) -> None:
        probes = [trial for trial in whole.trials if trial.proposed_by == "probe"]
        require(
            self.search.probes or not probes,
            f"{self.what} reads probes, and says probes=False, so that they are not measured beforehand. Say "
            "probes=True.",
        )
        for trial in whole.trials:
            place = f"{self.what}, trial {trial.number}"
            within = trial.proposed_by == "probe" or trial.plan.costs.macs <= problem.budget.limit
            require(
                within,
                f"{place}: the plan takes {trial.plan.costs.macs} MACs, and {problem.budget.limit} are allowed. Pass "
                "widths through problem.budget.project.",
            )

    def _check_repetition(self, whole: _Run, evaluations: int) -> None:
        again = self._run(small_problem(), evaluations, noise=1)
        self._require_same(
            whole,
            again,
            "the same seed gives another plan the second time. It depends on something else than the problem, the "
            "settings and the outcomes, such as a global generator; draw from np.random.default_rng(config.seed)",
        )

    def _check_resuming(self, whole: _Run, evaluations: int) -> None:
        count = len(whole.trials)
        for stop in sorted({1, count // 2, count - 1} - {0, count}):
            problem = small_problem()
            problem.recorded_trials = [trial.record() for trial in whole.trials[:stop]]
            resumed = self._run(problem, evaluations, noise=2)
            self._require_same(whole, resumed, f"a run that is resumed after {stop} trials goes on with another plan")

    def _check_order(self, evaluations: int) -> None:
        for lag in (1, LAG):
            one = self._run(small_problem(), evaluations, noise=3, lag=lag)
            other = self._run(small_problem(), evaluations, noise=3, lag=lag, pool=LastFirst)
            self._require_same(
                one,
                other,
                f"with search.lag={lag}, several workers give another plan. It depends on something else than what it "
                "is told, or its `independent` proposals depend on outcomes",
            )

    def _check_told(self, problem: PruningProblem, whole: _Run) -> None:
        for episode in whole.episodes:
            for tag, value in episode.scalars.items():
                require(math.isfinite(value), f"{self.what}: its scalar {tag!r} is {value}. It must be finite.")
        policy = whole.result.policy
        if policy is not None:
            self._check_policy(problem, policy)

    def _check_policy(self, problem: PruningProblem, policy: Policy) -> None:
        env = PruningEnv(problem=problem, action=policy.action)
        observation, _ = env.reset()
        action, again = policy.act(observation), policy.act(observation)
        shape = (len(env.dimensions),)
        require(
            action.shape == shape and bool(np.isfinite(action).all()) and float(np.abs(action).max()) <= 1.0,
            f"{self.what}: its policy gives the action {action.tolist()}. It must give {shape[0]} numbers in [-1, 1].",
        )
        require(np.array_equal(action, again), f"{self.what}: its policy gives two actions for one observation.")

    def _require_same(self, whole: _Run, other: _Run, words: str) -> None:
        for one, two in zip(whole.trials, other.trials, strict=False):
            place = f"{self.what}, trial {one.number}"
            require(one == two, f"{place}: {words}.")
        count, others = len(whole.trials), len(other.trials)
        require(count == others, f"{self.what} makes {count} trials, and then {others}: {words}.")

    def _run(
        self,
        problem: PruningProblem,
        evaluations: int,
        noise: int,
        lag: int = 1,
        pool: Callable[[PruningProblem], Pool] = Here,
    ) -> _Run:
        """Runs the search while the global generators are seeded by ``noise``."""
        trials: list[Trial] = []
        episodes: list[Episode] = []
        problem.listeners.append(trials.append)
        config = self._config(evaluations, lag)
        with explained(f"{self.what} fails with search.evaluations={evaluations}"), global_randomness(noise):
            result = train_agent(problem, config, (lambda episode, _: episodes.append(episode),), pool(problem))
        return _Run(trials, episodes, result)

    def _config(self, evaluations: int, lag: int) -> RunConfig:
        document: Mapping[str, Any] = {
            "model": {"name": "small"},
            "data": {"name": "noise"},
            "agent": {"name": self.name, "hidden": [8]},
            "search": {"evaluations": evaluations, "lag": lag},
        }
        return RunConfig.from_mapping(document, self.overrides)
