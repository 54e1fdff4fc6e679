"""What a pool adds to each evaluation, with evaluators that sleep: `python -m benchmarks.workers`."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.sleepers import evaluations_per_second, sleepy_problem
from prune_env.commands.common import console, results, run_command
from prune_env.env.problem import PruningProblem
from prune_env.search.pools import Pool
from prune_env.search.pools.cluster import Cluster
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes

Seconds = Annotated[float, typer.Option(min=0.0, help="Seconds that each evaluation sleeps.")]
Count = Annotated[int, typer.Option(min=1, help="Number of workers.")]
Evaluations = Annotated[int, typer.Option(min=10, help="Evaluations of each pool; the first third is not timed.")]
WithRay = Annotated[bool, typer.Option(help="Whether to measure a Ray cluster of this machine as well.")]


def workers(
    seconds: Seconds = 0.2, workers: Count = 2, evaluations: Evaluations = 150, with_ray: WithRay = True
) -> None:
    """Prints evaluations a second of each pool, and what a worker takes for an evaluation beyond its sleep."""
    pools: dict[str, tuple[int, Callable[[PruningProblem], Pool]]] = {
        "this process": (1, Here),
        f"{workers} processes": (workers, lambda problem: Processes(problem, workers)),
    }
    if with_ray:
        pools[f"{workers} actors on a Ray cluster"] = workers, lambda problem: Cluster(problem, "local", workers)
    table = Table("pool", "evaluations a second", "overhead of an evaluation, ms", box=SIMPLE)
    with console.status("") as status:
        for name, (count, pool_of) in pools.items():
            status.update(name)
            problem = sleepy_problem(seconds)
            rate = evaluations_per_second(problem, pool_of(problem), evaluations, 2 * count)
            table.add_row(name, f"{rate:.1f}", f"{1e3 * (count / rate - seconds):.1f}")
    results.print(table)


if __name__ == "__main__":
    run_command(workers)
