"""Evaluators that sleep instead of measuring, so that only the work around an evaluation takes a processor."""

import time

import numpy as np

from benchmarks.synthetic_walks import synthetic_problem
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import PruningPlan
from prune_env.rewards import Outcome
from prune_env.search.loop import train_agent
from prune_env.search.pools import Pool

WARM_UP = 1 / 3
"""The share of a search's evaluations that is not timed: workers start meanwhile."""


class Sleeper(Evaluator):
    """Sleeps, and then gives an outcome that depends on the widths alone."""

    seconds_asleep = 0.0

    def run(self, plan: PruningPlan, *_: object) -> Outcome:
        """Sleeps for ``seconds_asleep``."""
        time.sleep(self.seconds_asleep)
        kept = np.mean([len(unit.kept) / unit.channels for unit in plan.units])
        return Outcome(round(float(kept), 3), 1.0 - float(kept), plan.costs.macs, plan.costs.params)

    def __reduce__(self) -> tuple[object, ...]:
        kind, arguments = super().__reduce__()
        return kind, arguments, {"seconds_asleep": self.seconds_asleep}


def sleepy_problem(seconds: float) -> PruningProblem:
    """A problem of 20 free units whose evaluator sleeps."""
    problem = synthetic_problem(0, coupled=True)
    data = problem.context.data
    assert data is not None
    sleeper = Sleeper(problem.walk, data, data, ExecutionSettings(batch=8, threads=1))
    sleeper.seconds_asleep = seconds
    problem.evaluator = sleeper
    return problem


def evaluations_per_second(problem: PruningProblem, pool: Pool, evaluations: int, in_flight: int) -> float:
    """The rate of a random search in a pool, without its first third."""
    import prune_env.agents  # noqa: F401  (registers the searches)

    config = RunConfig.from_mapping(
        {"model": {"name": "chain"}, "data": {"name": "none"}, "agent": {"name": "random"}},
        [f"search.evaluations={evaluations}", f"search.lag={in_flight}"],
    )
    times: list[float] = []
    problem.listeners.append(lambda _: times.append(time.perf_counter()))
    with pool:
        train_agent(problem, config, pool=pool)
    return rate_of(times)


def rate_of(times: list[float]) -> float:
    """Evaluations a second from the times at which they ended, in seconds, without the first third."""
    first = int(WARM_UP * len(times))
    return (len(times) - 1 - first) / (times[-1] - times[first])
