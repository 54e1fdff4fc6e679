"""The results of searches for each seed: curves, records, wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prune_env.common.errors import RunError
from prune_env.env.trial import TrialRecord
from prune_env.runs.intervals import Curve, Interval
from prune_env.runs.run_directory import RunDirectory


@dataclass(frozen=True)
class SeedResult:
    """The result of one search with one seed.

    Attributes:
        seed: The seed.
        curve: Quality of the best plan so far on the reward set, as the search measured it; [evaluations]. Before the
            first plan of the search, the uniform plan counts as the best.
        best: Quality of the best plan on the reward set in float32, in [0, 1], by number of evaluations (milestones).
        test_quality: Quality of the final best plan on the test set, in [0, 1].
        seconds: Wall-clock seconds of the search.
    """

    seed: int
    curve: Curve
    best: Mapping[int, float]
    test_quality: float
    seconds: float


def best_so_far(run: RunDirectory, search: str, evaluations: int, quality: str) -> tuple[Curve, list[TrialRecord]]:
    """A run's curve, and the record of its best plan after each evaluation.

    Probes count as evaluations. The uniform plan, the first trial of every run, does not.

    Args:
        run: A finished run.
        search: The search's name.
        evaluations: Length of the curve. If the run has fewer evaluations, its last best plan fills the rest.
        quality: The task's name for its quality.

    Returns:
        Qualities [evaluations] and records.

    Raises:
        RunError: If the run holds no evaluation.
    """
    trials = run.evaluations(quality)
    if not trials:
        raise RunError(f"{str(run.root)!r} is damaged: it is finished, but holds no evaluation. Start a new run.")
    best, *rest = trials
    own = False
    records = []
    for trial in rest[:evaluations]:
        if trial.kind == search and (not own or trial.reward > best.reward):
            best, own = trial, True
        records.append(best)
    records += [best] * (evaluations - len(records))
    return np.array([record.quality for record in records]), records


def as_record(searches: Mapping[str, Sequence[SeedResult]], quality: str) -> dict[str, Any]:
    """The comparison as plain data, by search; ``quality`` is the task's name for its quality."""
    records = {}
    for name, outcomes in searches.items():
        *early, last = outcomes[0].best
        at_end = interval_after(outcomes, last)
        records[name] = {
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
    return records


def wins(searches: Mapping[str, Sequence[SeedResult]], name: str) -> int:
    """Number of seeds in which the final best plan of a search beat those of all other searches."""
    last = list(searches[name][0].best)[-1]
    won = 0
    for outcome in searches[name]:
        others = [
            other.best[last]
            for key, outcomes in searches.items()
            for other in outcomes
            if key != name and other.seed == outcome.seed
        ]
        won += all(outcome.best[last] > other for other in others)
    return won


def interval_after(outcomes: Sequence[SeedResult], count: int) -> Interval:
    """Mean quality over seeds of a search's best plan after ``count`` evaluations, with its interval."""
    return Interval.of([outcome.best[count] for outcome in outcomes])
