"""What a comparison of searches comes to: curves, intervals over seeds, the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE
from rich.table import Table

from prune_env.common.errors import RunError
from prune_env.runs.directory import RunDirectory

RESAMPLES = 10_000
"""Bootstrap samples of the seeds."""

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeedResult:
    """What one search found with one seed.

    Attributes:
        seed: The seed.
        curve: Accuracy on the reward set, as ranked, of the best plan so far; [evaluations]. Until the search has
            proposed a plan of its own, the uniform one stands in.
        best: Accuracy of its best plan after each milestone on the reward set, in float32, in [0, 1].
        test_accuracy: Of its best plan at the end, in [0, 1].
        seconds: Wall-clock seconds of the search.
    """

    seed: int
    curve: Curve
    best: Mapping[int, float]
    test_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % bootstrap interval; without one for a single seed."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of one value a seed."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, None, None)
        low, high = bands(np.array(values)[:, None])
        return cls(mean, float(low[0]), float(high[0]))

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{100 * self.mean:.2f}"
        return f"{100 * self.mean:.2f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def bands(values: Curve) -> tuple[Curve, Curve]:
    """Ends of the 95 % percentile bootstrap interval of the mean over seeds.

    Args:
        values: [seeds, points].

    Returns:
        The lower and the upper end, [points] each.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    weights = np.stack([np.bincount(row, minlength=len(values)) for row in drawn]) / len(values)
    low, high = np.quantile(weights @ values, (0.025, 0.975), axis=0)
    return low, high


def best_so_far(run: RunDirectory, search: str, evaluations: int) -> tuple[Curve, list[dict[str, Any]]]:
    """A run's curve, and the record of its best plan after each evaluation.

    The uniform plan, which every run tries first, does not count as an evaluation; probes do.

    Args:
        run: A finished run.
        search: Its search's name.
        evaluations: How many it was given; one that ended before keeps its best.

    Returns:
        Accuracies [evaluations] and records.

    Raises:
        RunError: If the run holds no evaluation.
    """
    trials = run.evaluations()
    if not trials:
        raise RunError(f"{str(run.root)!r} is damaged: it is finished, but holds no evaluation")
    best, *rest = trials
    own = False
    records = []
    for trial in rest[:evaluations]:
        if trial["kind"] == search and (not own or trial["reward"] > best["reward"]):
            best, own = trial, True
        records.append(best)
    records += [best] * (evaluations - len(records))
    return np.array([record["accuracy"] for record in records]), records


def as_record(searches: Mapping[str, Sequence[SeedResult]]) -> dict[str, Any]:
    """The comparison as plain data, by search."""
    found = {}
    for name, outcomes in searches.items():
        *early, last = outcomes[0].best
        at_end = _interval(outcomes, last)
        found[name] = {
            "mean_best": at_end.mean,
            "ci_low": at_end.low,
            "ci_high": at_end.high,
            "at": {str(count): vars(_interval(outcomes, count)) for count in early},
            "area": float(np.mean([outcome.curve.mean() for outcome in outcomes])),
            "test_accuracy": float(np.mean([outcome.test_accuracy for outcome in outcomes])),
            "seconds": float(np.mean([outcome.seconds for outcome in outcomes])),
            "seeds": [outcome.seed for outcome in outcomes],
            "best": [outcome.best[last] for outcome in outcomes],
            "tested": [outcome.test_accuracy for outcome in outcomes],
        }
    return found


def render(searches: Mapping[str, Sequence[SeedResult]], title: str) -> Table:
    """The table, best search first; accuracies in per cent."""
    table = Table(box=SIMPLE, title=title, title_justify="left")
    first = next(iter(searches.values()))[0]
    milestones = list(first.best)
    headings = [f"best after {count}" for count in milestones]
    for number, heading in enumerate(["search", *headings, "area", "test set", "seeds won", "seconds"]):
        table.add_column(heading, justify="right" if number else "left")
    last = milestones[-1]
    order = sorted(searches, key=lambda name: -_interval(searches[name], last).mean)
    for name in order:
        outcomes = searches[name]
        table.add_row(
            name,
            *(str(_interval(outcomes, count)) for count in milestones),
            f"{100 * np.mean([outcome.curve.mean() for outcome in outcomes]):.2f}",
            str(Interval.of([outcome.test_accuracy for outcome in outcomes])),
            str(wins(searches, name)),
            f"{np.mean([outcome.seconds for outcome in outcomes]):.0f}",
        )
    return table


def wins(searches: Mapping[str, Sequence[SeedResult]], name: str) -> int:
    """In how many seeds a search's best plan at the end was better than that of every other."""
    last = list(searches[name][0].best)[-1]
    found = 0
    for outcome in searches[name]:
        others = [
            other.best[last]
            for key, outcomes in searches.items()
            for other in outcomes
            if key != name and other.seed == outcome.seed
        ]
        found += all(outcome.best[last] > other for other in others)
    return found


def _interval(outcomes: Sequence[SeedResult], count: int) -> Interval:
    return Interval.of([outcome.best[count] for outcome in outcomes])
