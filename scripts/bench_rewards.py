"""`prune-env bench rewards`: the ranking of plans by cheaper rewards against the full reward in float32."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table
from scipy.stats import spearmanr

from prune_env.batch_norm.recalibration import measuring
from prune_env.commands.common import AsJson, ConfigArgument, Overrides, print_json, results
from prune_env.commands.next_steps import print_next, with_config
from prune_env.commands.progress import phases, tracked
from prune_env.data import ImageSet
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.execution_choice import random_plans
from prune_env.evaluation.measuring import measure
from prune_env.plan import PruningPlan
from prune_env.report.fitting import plain_table
from prune_env.runs.settings import read_settings

BEST = 10
"""Number of best plans that are compared."""

Plans = Annotated[int, typer.Option(min=BEST, help="Number of ranked random plans at the budget.")]


@dataclass
class Variant:
    """A way to measure the reward, with its results: quality in [0, 1] and seconds for each plan."""

    name: str
    quality_of: Callable[[PruningPlan], float]
    qualities: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def measure(self, plan: PruningPlan) -> None:
        """Measures quality and time of one plan."""
        started = time.perf_counter()
        self.qualities.append(self.quality_of(plan))
        self.seconds.append(time.perf_counter() - started)


def bench_rewards(
    config: ConfigArgument, overrides: Overrides = None, plans: Plans = 100, as_json: AsJson = False
) -> None:
    """Ranks random plans by the full reward in float32 and by cheaper ones: fewer images, one pass, bfloat16."""
    settings = read_settings(config, overrides or ())
    with phases("loading") as tell:
        splits = load_splits(settings)
        problem = build_problem(settings, splits, load_model(settings, splits), tell)
        variants = list(_variants(problem, splits.reward(), splits.calibration()))
    sample = random_plans(problem.walk, problem.budget, problem.scores, plans)
    for plan in tracked(sample, "evaluating", plans):
        for variant in variants:
            variant.measure(plan)
    rows = [_compared(variant, variants[0]) for variant in variants]
    if as_json:
        print_json({"plans": plans, "rows": rows})
    else:
        results.print(_render(rows, plans))
        print_next(with_config(str(config), overrides or ()))


def _variants(problem: PruningProblem, reward: ImageSet, calibration: ImageSet) -> Iterator[Variant]:
    """The variants, the full reward first."""
    exact = replace(problem.evaluator.execution, dtype="float32")
    device, task = problem.evaluator.device, problem.evaluator.task

    def plain(name: str, rewarded: int, calibrated: int, execution: ExecutionSettings = exact) -> Variant:
        sets = reward.first(rewarded), calibration.first(calibrated)
        evaluator = Evaluator(problem.walk, *sets, execution, device, task=task)
        return Variant(name, lambda plan: evaluator.run(plan).quality)

    whole, every = len(reward), len(calibration)
    yield plain(f"float32, {whole} reward and {every} calibration images", whole, every)
    yield plain("bfloat16", whole, every, replace(exact, dtype="bfloat16"))
    for fewer in dict.fromkeys(max(2, every // share) for share in (2, 4, 8)):
        yield plain(f"{fewer} calibration images", whole, fewer)
    for fewer in dict.fromkeys(max(1, whole // share) for share in (2, 4)):
        yield plain(f"{fewer} reward images", fewer, every)
    yield Variant("one pass: the reward batches' own statistics", OnePass(problem, reward, exact).quality_of)


class OnePass:
    """One pass over the reward set, in which each batch is normalised with its own statistics; no calibration set."""

    def __init__(self, problem: PruningProblem, reward: ImageSet, execution: ExecutionSettings) -> None:
        few = reward.first(2)  # a placeholder: no calibration set is read
        evaluator = problem.evaluator
        self.evaluator = Evaluator(problem.walk, reward, few, execution, evaluator.device, task=evaluator.task)

    def quality_of(self, plan: PruningPlan) -> float:
        """The plan's quality."""
        network = self.evaluator.cut(plan)
        with torch.no_grad(), measuring(network):
            return measure(network, self.evaluator.reward, self.evaluator.task).quality


def _compared(variant: Variant, whole: Variant) -> dict[str, Any]:
    best, found = (set(np.argsort(one.qualities)[-BEST:].tolist()) for one in (whole, variant))
    return {
        "name": variant.name,
        "spearman": float(spearmanr(whole.qualities, variant.qualities).statistic),
        "best_in_common": len(best & found),
        "mean_difference": float(np.mean(np.subtract(variant.qualities, whole.qualities))),
        "seconds": float(np.median(variant.seconds)),
        "of_the_whole": float(np.median(np.divide(variant.seconds, whole.seconds))),
    }


def _render(rows: list[dict[str, Any]], plans: int) -> Table:
    table = plain_table(f"{plans} random plans at the budget, ranked by quality on the reward set")
    table.add_column("reward")
    for heading in ("Spearman", f"of the\nbest {BEST}", "mean\ndifference", "seconds", "of the\nwhole"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['spearman']:.3f}",
            str(row["best_in_common"]),
            f"{100 * row['mean_difference']:+.2f} points",
            f"{row['seconds']:.3f}",
            f"{row['of_the_whole']:.2f}",
        )
    return table
