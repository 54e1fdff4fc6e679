"""The memory of a worker: `python -m benchmarks.worker_memory CONFIG`.

RSS counts every page of a process; PSS counts a page that several processes share in parts. Linux alone tells them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE
from rich.table import Table

from prune_env.commands.common import ConfigArgument, Overrides, console, results, run_command
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.runs.settings import read_settings
from prune_env.runs.starting import load_problem
from prune_env.search.pools import Order, Pool
from prune_env.search.pools.cluster import Cluster
from prune_env.search.pools.processes import Processes
from prune_env.search.pools.worker import Bench

Count = Annotated[int, typer.Option(min=1, help="Number of workers.")]
Plans = Annotated[int, typer.Option(min=1, help="Plans that each worker measures before its memory is read.")]
WithRay = Annotated[bool, typer.Option(help="Whether to measure a Ray cluster of this machine as well.")]


def worker_memory(
    config: ConfigArgument, overrides: Overrides = None, workers: Count = 2, plans: Plans = 4, with_ray: WithRay = True
) -> None:
    """Prints the memory of the driver and of a worker of each pool."""
    with console.status("loading") as status:
        _, problem = load_problem(read_settings(config, [*(overrides or ()), "execution.threads=1"]))
        table = Table("process", "RSS, MB", "PSS, MB", box=SIMPLE)
        pools: list[tuple[str, Callable[[], Pool], Callable[[Pool], Iterable[int]]]] = [
            ("worker of the process pool", lambda: Processes(problem, workers), _processes)
        ]
        if with_ray:
            pools.append(("worker of a Ray cluster", lambda: Cluster(problem, "local", workers), _actors))
        for name, pool_of, numbers_of in pools:
            status.update(name)
            with pool_of() as pool:
                _measure(pool, problem, workers * plans)
                table.add_row(name, *_megabytes(list(numbers_of(pool))))
        table.add_row("driver", *_megabytes(["self"]))
    results.print(table)
    results.print(f"sent to each worker once: {len(Bench.of(problem).packed()) / 1e6:.1f} MB")


def _measure(pool: Pool, problem: PruningProblem, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        pool.submit(Order(number, Proposal(problem.budget.random(generator))))
    for _ in range(count):
        pool.wait()


def _processes(pool: Pool) -> Iterable[int]:
    assert isinstance(pool, Processes)
    return pool._executor._processes


def _actors(pool: Pool) -> Iterable[int]:
    assert isinstance(pool, Cluster)
    return [int(actor.name.rsplit(" ", 1)[1]) for actor in pool._actors if actor.node]


def _megabytes(processes: Sequence[int | str]) -> tuple[str, str]:
    """RSS and PSS, the mean of the processes, in MB."""
    found = []
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        found.append((kilobytes["Rss"], kilobytes["Pss"]))
    rss, pss = np.mean(found, axis=0) * 1024 / 1e6
    return f"{rss:.0f}", f"{pss:.0f}"


if __name__ == "__main__":
    run_command(worker_memory)
