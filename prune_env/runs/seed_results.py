"""What searches found, seed by seed: curves, records, wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prune_env.common.errors import RunError
from prune_env.runs.directory import RunDirectory
from prune_env.runs.intervals import Curve, Interval


@dataclass(frozen=True)
class SeedResult:
    """What one search found with one seed.

    Attributes:
        seed: The seed.
        curve: Quality on the reward set, as ranked, of the best plan so far; [evaluations]. Until the search has
            proposed a plan of its own, the uniform one stands in.
        best: Quality of its best plan after each milestone on the reward set, in float32, in [0, 1].
        test_quality: Of its best plan at the end, in [0, 1].
        seconds: Wall-clock seconds of the search.
    """

    seed: int
    curve: Curve
    best: Mapping[int, float]
    test_quality: float
    seconds: float


def best_so_far(run: RunDirectory, search: str, evaluations: int, quality: str) -> tuple[Curve, list[dict[str, Any]]]:
    """A run's curve, and the record of its best plan after each evaluation.

    The uniform plan, which every run tries first, does not count as an evaluation; probes do.

    Args:
        run: A finished run.
        search: Its search's name.
        evaluations: How many it was given; one that ended before keeps its best.
        quality: What the task calls its quality.

    Returns:
        Qualities [evaluations] and records.

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
    return np.array([record[quality] for record in records]), records


def as_record(searches: Mapping[str, Sequence[SeedResult]], quality: str) -> dict[str, Any]:
    """The comparison as plain data, by search; ``quality`` is what the task calls its quality."""
    found = {}
    for name, outcomes in searches.items():
        *early, last = outcomes[0].best
        at_end = interval_after(outcomes, last)
        found[name] = {
            "mean_best": at_end.mean,
            "ci_low": at_end.low,
            "ci_high": at_end.high,
            "at": {str(count): vars(interval_after(outcomes, count)) for count in early},
            "area": float(np.mean([outcome.curve.mean() for outcome in outcomes])),
            f"test_{quality}": float(np.mean([outcome.test_quality for outcome in outcomes])),
            "seconds": float(np.mean([outcome.seconds for outcome in outcomes])),
            "seeds": [outcome.seed for outcome in outcomes],
            "best": [outcome.best[last] for outcome in outcomes],
            "tested": [outcome.test_quality for outcome in outcomes],
        }
    return found


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


def interval_after(outcomes: Sequence[SeedResult], count: int) -> Interval:
    """The quality of a search's best plan after so many evaluations, over its seeds."""
    return Interval.of([outcome.best[count] for outcome in outcomes])
