"""What a search itself takes for each evaluation, without the network: `python -m benchmarks.proposer CONFIG`.

The plans of the configuration's problem get outcomes by a formula, which costs next to nothing. What is left is the
work of the process that proposes, which bounds how many workers a search can feed: actions, plans, learning, records.
The last row is the part of ``ddpg`` that no rewriting saves: the matrix products of its updates, on the same processor.
"""

import time
from itertools import pairwise
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.synthetic_walks import FormulaEvaluator, Landscape
from prune_env.agents import train_agent
from prune_env.commands.common import ConfigArgument, Overrides, console, results, run_command
from prune_env.commands.compare import searches_of
from prune_env.config import RunConfig
from prune_env.env.observation import FEATURES
from prune_env.env.problem import PruningProblem
from prune_env.runs.settings import read_settings
from prune_env.runs.starting import load_problem

Searches = Annotated[str, typer.Option(help="Comma-separated names of searches.")]


def proposer(config: ConfigArgument, overrides: Overrides = None, searches: Searches = "random,cma,ddpg") -> None:
    """Prints the processor milliseconds of each search for an evaluation."""
    settings = read_settings(config, [*(overrides or ()), "execution.threads=1"])
    with console.status("loading") as status:
        _, problem = load_problem(settings)
        landscape = Landscape.drawn(0, len(problem.walk.free), coupled=True)
        problem.evaluator = cast(Any, FormulaEvaluator(problem.walk, landscape))
        table = Table("search", "processor ms an evaluation, median", "10 % take less than", box=SIMPLE)
        for name in searches_of(searches):
            status.update(name)
            _add(table, name, milliseconds(problem.again(), settings, name))
        _add(table, "matrix products of ddpg", products(len(problem.budget.units), settings))
    results.print(table)


def milliseconds(problem: PruningProblem, settings: RunConfig, name: str) -> list[float]:
    """The processor time between two trials, for each of the later two thirds of a search."""
    agent = settings.agent.model_copy(update={"name": name})
    times: list[float] = []
    problem.listeners.append(lambda _: times.append(time.process_time()))
    train_agent(problem, settings.model_copy(update={"agent": agent}))
    return [1e3 * seconds for seconds in np.diff(times)[len(times) // 3 :]]


def products(steps: int, settings: RunConfig) -> list[float]:
    """The processor time of the matrix products alone of one evaluation's updates, repeatedly."""
    agent = settings.agent.with_preset()
    rows = steps * agent.decomposed_episodes
    sizes = [len(FEATURES), *agent.hidden, 1]
    layers = [
        (torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.randn(rows, outputs))
        for inputs, outputs in pairwise(sizes)
    ]
    found = []
    for _ in range(30):
        started = time.process_time()
        for _ in range(max(1, round(agent.updates_per_step * steps))):
            for inputs, weights, gradients in layers:
                for _ in range(3):  # the critic twice, the actor once
                    inputs.mm(weights)
                for _ in range(2):  # the weights of both
                    gradients.t().mm(inputs)
                for _ in range(1 if inputs is layers[0][0] else 3):  # not the inputs of both, but the action of one
                    gradients.mm(weights.t())
        found.append(1e3 * (time.process_time() - started))
    return found


def _add(table: Table, name: str, values: list[float]) -> None:
    table.add_row(name, f"{np.median(values):.1f}", f"{np.quantile(values, 0.1):.1f}")


if __name__ == "__main__":
    run_command(proposer)
