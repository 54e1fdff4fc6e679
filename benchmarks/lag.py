"""What the lag costs: the same searches and seeds with several lags; `python -m benchmarks.lag CONFIG FOLDER`.

Each lag is a comparison (`prune-env compare`) in FOLDER/lag-LAG, and each of its searches a run. Repeat an interrupted
command: finished searches are kept, and the interrupted one is resumed. One process gives what workers would give.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from prune_env.commands.common import (
    ConfigArgument,
    Overrides,
    between_commas,
    console,
    notice,
    run_command,
)
from prune_env.commands.compare import searches_of
from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig
from prune_env.report.whole_runs import run_comparison
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.intervals import Interval
from prune_env.runs.seed_results import SeedResult
from prune_env.runs.settings import read_settings

WIDTH = 160
"""Columns of the table."""

Searches = Annotated[str, typer.Option(help="Comma-separated names of searches.")]
Lags = Annotated[str, typer.Option(help="Comma-separated values of search.lag; the first is the one to compare with.")]
Evaluations = Annotated[int, typer.Option(min=1, help="Evaluations of each search, probes included.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds; the first is the configuration's.")]


def lag(
    config: ConfigArgument,
    folder: Path,
    overrides: Overrides = None,
    searches: Searches = "ddpg,cma,cma_from_rules",
    lags: Lags = "1,8,16",
    evaluations: Evaluations = 300,
    seeds: Seeds = 5,
) -> None:
    """Runs what is missing, and prints the table."""
    names, given = searches_of(searches), list(overrides or ())
    found: dict[int, Mapping[str, Sequence[SeedResult]]] = {}
    for one in lags_of(lags):
        settings = read_settings(config, [*given, f"search.lag={one}", f"search.evaluations={evaluations}"])
        with console.status("") as status:
            comparison = run_comparison(settings, folder / f"lag-{one}", names, seeds, status.update, on_finished)
        found[one] = comparison.outcomes
    Console(width=WIDTH).print(table(found, evaluations))


def lags_of(given: str) -> list[int]:
    """The lags in a comma-separated list.

    Raises:
        ConfigError: If one is no whole number, or none is given.
    """
    names = between_commas(given)
    if not names or not all(name.isdecimal() and int(name) for name in names):
        raise ConfigError(f"--lags: {given!r} given; allowed are whole numbers of 1 or more, such as 1,8,16.")
    return [int(name) for name in names]


def on_finished(finished: FinishedSearch) -> None:
    """Says which search is finished, and what it took."""
    settings: RunConfig = finished.search.settings
    notice(f"lag {settings.search.lag}, seed {settings.seed}, {settings.agent.name}: {finished.result.seconds:.0f} s")


def table(found: Mapping[int, Mapping[str, Sequence[SeedResult]]], evaluations: int) -> Table:
    """A row for each search and lag, in per cent; differences are paired by seed."""
    first, *_ = found
    milestones = list(next(iter(found[first].values()))[0].best)
    seeds = len(next(iter(found[first].values())))
    title = f"quality in %, {evaluations} evaluations: mean of {seeds} seeds and its 95 % interval"
    shown = Table(box=SIMPLE, title=title, title_justify="left")
    difference = f"against lag {first}"
    headings = [*(f"best after {count}" for count in milestones), difference, "test set", difference]
    for number, heading in enumerate(["search", "lag", *headings]):
        shown.add_column(heading, justify="right" if number else "left")
    for name in found[first]:
        for one, outcomes in found.items():
            best = {count: _column(outcomes[name], count) for count in milestones}
            tested = np.array([outcome.test_quality for outcome in outcomes[name]])
            last = milestones[-1]
            plain = [outcome.test_quality for outcome in found[first][name]]
            pairs = (best[last] - _column(found[first][name], last), tested - np.array(plain))
            closer, on_test = (str(Interval.of(pair.tolist())) if one != first else "" for pair in pairs)
            cells = [str(Interval.of(values.tolist())) for values in (*best.values(), tested)]
            shown.add_row(name, str(one), *cells[:-1], closer, cells[-1], on_test)
    return shown


def _column(outcomes: Sequence[SeedResult], count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([outcome.best[count] for outcome in outcomes])


if __name__ == "__main__":
    run_command(lag)
