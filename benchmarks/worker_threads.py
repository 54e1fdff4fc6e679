"""Two workers of one thread against one process of two threads: `python -m benchmarks.worker_threads CONFIG`.

Each round gives every pool the same new plans, one pool after the other, so that a slow minute of the machine slows all
of them. The order rotates from round to round.
"""

import time
from typing import Annotated

import numpy as np
import torch
import typer
from rich.box import SIMPLE
from rich.table import Table

from prune_env.commands.common import ConfigArgument, Overrides, console, results, run_command
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.runs.intervals import bands
from prune_env.runs.settings import read_settings
from prune_env.runs.starting import load_problem
from prune_env.search.pools import Order, Pool
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes

ONE, TWO, WORKERS = "one process, one thread", "one process, two threads", "two workers, one thread each"

Rounds = Annotated[int, typer.Option(min=2, help="Rounds after a first one that does not count.")]
Plans = Annotated[int, typer.Option(min=2, help="Plans in a round.")]


def worker_threads(config: ConfigArgument, overrides: Overrides = None, rounds: Rounds = 12, plans: Plans = 16) -> None:
    """Prints the seconds of an evaluation in each pool, and how many times as fast two workers are."""
    with console.status("loading") as status:
        problems = {
            threads: load_problem(read_settings(config, [*(overrides or ()), f"execution.threads={threads}"]))[1]
            for threads in (2, 1)
        }
        # The workers must measure the digits of one thread, which torch is now set to.
        with Processes(problems[1], 2) as workers:
            pools: dict[str, Pool] = {ONE: Here(problems[1]), TWO: Here(problems[2]), WORKERS: workers}
            threads = {ONE: 1, TWO: 2, WORKERS: 1}
            generator = np.random.default_rng(0)
            seconds: dict[str, list[float]] = {name: [] for name in pools}
            for number in range(rounds + 1):
                status.update(f"round {number} of {rounds}")
                proposals = [Proposal(problems[1].budget.random(generator)) for _ in range(plans)]
                turn = number % len(pools)
                for name in [*pools, *pools][turn : turn + len(pools)]:
                    torch.set_num_threads(threads[name])
                    took = seconds_of(pools[name], proposals)
                    if number:
                        seconds[name].append(took / plans)
    results.print(table(problems, seconds))
    for name in (TWO, ONE):
        ratios = np.array(seconds[name]) / np.array(seconds[WORKERS])
        low, high = bands(ratios[:, None])
        results.print(
            f"{WORKERS}, are {np.median(ratios):.2f} times as fast as {name} (median of {rounds} rounds; "
            f"95 % interval of the mean {float(low[0]):.2f} to {float(high[0]):.2f})"
        )


def seconds_of(pool: Pool, proposals: list[Proposal]) -> float:
    """Wall-clock seconds of measuring the plans in a pool.

    Raises:
        Exception: If a plan cannot be measured.
    """
    started = time.perf_counter()
    for number, proposal in enumerate(proposals):
        pool.submit(Order(number, proposal))
    for _ in proposals:
        if isinstance(result := pool.wait().result, Exception):
            raise result
    return time.perf_counter() - started


def table(problems: dict[int, PruningProblem], seconds: dict[str, list[float]]) -> Table:
    """A row for each pool."""
    shown = Table("pool", "seconds an evaluation, median", "execution settings", box=SIMPLE)
    for name, values in seconds.items():
        settings = problems[2 if name == TWO else 1].evaluator.execution
        words = f"{settings.layout}, {settings.dtype}, folded {settings.folded}, batch {settings.batch}"
        shown.add_row(name, f"{np.median(values):.3f}", words)
    return shown


if __name__ == "__main__":
    run_command(worker_threads)
