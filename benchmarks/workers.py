"""Overhead of an evaluation by pool, with sleeping evaluators: `python -m benchmarks.workers SECONDS WORKERS [ray]`."""

import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic_walks import synthetic_problem
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import PruningPlan
from prune_env.rewards import Outcome
from prune_env.search.loop import train_agent
from prune_env.search.pools import Pool
from prune_env.search.pools.cluster import Cluster
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes

EVALUATIONS = 120


class Sleeper(Evaluator):
    """Sleeps, and then gives an outcome that depends on the widths alone."""

    seconds_asleep = 0.0

    def run(self, plan: PruningPlan, *_: object) -> Outcome:
        """Sleeps for ``seconds_asleep``, which the plan's cost carries to other processes."""
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


def measured(seconds: float, workers: int, pool_of: Callable[[PruningProblem], Pool]) -> tuple[float, float]:
    """Evaluations a second once the workers have started, and the overhead of each in ms."""
    problem = sleepy_problem(seconds)
    config = RunConfig.from_mapping(
        {"model": {"name": "chain"}, "data": {"name": "none"}, "agent": {"name": "random"}},
        [f"search.evaluations={EVALUATIONS}", f"search.lag={2 * workers}"],
    )
    times: list[float] = []
    problem.listeners.append(lambda _: times.append(time.perf_counter()))
    with pool_of(problem) as pool:
        train_agent(problem, config, pool=pool)
    # The first third lets the workers start.
    first = EVALUATIONS // 3
    rate = (EVALUATIONS - 1 - first) / (times[-1] - times[first])
    return rate, 1e3 * (workers / rate - seconds)


def main(seconds: float, workers: int, with_ray: bool) -> None:
    """Prints the table."""
    pools: dict[str, tuple[int, Callable[[PruningProblem], Pool]]] = {
        "this process": (1, Here),
        f"{workers} processes": (workers, lambda problem: Processes(problem, workers)),
    }
    if with_ray:
        pools[f"Ray, {workers} actors"] = workers, lambda problem: Cluster(problem, "local", workers)
    table = Table("pool", "evaluations/s", "overhead of a worker's evaluation, ms")
    for name, (count, pool_of) in pools.items():
        rate, overhead = measured(seconds, count, pool_of)
        table.add_row(name, f"{rate:.1f}", f"{overhead:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), "ray" in sys.argv[3:])
