"""What predicts the quality after fine-tuning: `python -m benchmarks.proxies CONFIG DIRECTORY [key.path=value ...]`.

A search of the configuration runs first, in ``DIRECTORY/search``. Then `PLANS` random plans at the budget and `PLANS`
of the best tenth of the search's plans are measured by each proxy and fine-tuned by the recipe ``finetune.*``
(``finetune.epochs=5``, for example). The table shows Spearman's rank correlation of each proxy with the quality on the
test set after fine-tuning, over all plans and within the better half of them.

Each plan is a line of ``DIRECTORY/plans-1-of-1.jsonl``; a repeated command goes on with the next plan. To share the
plans among processes, start several commands with ``part=1/2`` and ``part=2/2`` once the search is finished.

    python -m benchmarks.proxies configs/cifar10_resnet20.yaml runs/proxies finetune.epochs=5 repair.name=least_squares
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import ConfigDict
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from prune_env import PruningPlan, RunConfig
from prune_env.common.arrays import IntArray
from prune_env.common.copying import copied
from prune_env.common.errors import RunError
from prune_env.common.records import Record, append_record, read_records
from prune_env.data import Batch, Splits
from prune_env.env.builders import make_repair
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.measuring import measure
from prune_env.recover import Teacher, Trainer, Workers
from prune_env.report.whole_runs import run_searches
from prune_env.runs.fidelity import RankCorrelation, rank_correlation
from prune_env.runs.networks import test_batches
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import differing_settings, settings_of
from prune_env.runs.starting import load_problem
from prune_env.runs.training import training_images
from prune_env.surgery import Repair

PLANS = 20
"""Plans of each group."""

REPAIRS = ("none", "least_squares")

SHORT = (50, 200)
"""Steps of the short trainings that are proxies."""

DRAWS = 4
"""Random perturbations of the weights whose losses are averaged."""

NOISE = 0.05
"""Deviation of a perturbation, as a share of the root mean square of the layer's weights [our choice]."""

BATCH = 250

LESS_IS_BETTER = ("loss", "divergence", "mixed divergence", "perturbed loss", "loss after 50", "loss after 200")

Measured = dict[str, Any]


class PlanRow(Record):
    """One line of a part's file: a measured plan, and what was measured."""

    model_config = ConfigDict(extra="allow")

    number: int
    group: str
    widths: list[int]


@dataclass(frozen=True)
class Audit:
    """Everything that measures a plan.

    Attributes:
        settings: The settings; ``finetune`` is the recipe.
        splits: The data.
        problem: The problem of the search.
        answers: Folder of the teacher's outputs.
        repairs: The repairs by name; None for no repair.
    """

    settings: RunConfig
    splits: Splits
    problem: PruningProblem
    answers: Path
    repairs: Mapping[str, Repair | None]

    @classmethod
    def of(cls, settings: RunConfig, splits: Splits, problem: PruningProblem, answers: Path) -> Self:
        """The audit of a problem."""
        repairs = {}
        for name in dict.fromkeys((*REPAIRS, settings.repair.name)):
            section = settings.repair.model_copy(update={"name": name})
            given = settings.model_copy(update={"repair": section})
            repairs[name] = make_repair(given, splits, problem.walk)
        return cls(settings, splits, problem, answers, repairs)

    def measure(self, plan: PruningPlan) -> Measured:
        """All proxies of a plan, by repair, and its quality on the test set after fine-tuning."""
        started = time.perf_counter()
        proxies = {name: self._proxies(plan, self._cut(plan, name)) for name in REPAIRS}
        measured = time.perf_counter()
        tuned = self._trained(self._cut(plan, self.settings.repair.name), self.settings.finetune.epochs)
        evaluator = self.problem.evaluator
        quality = measure(tuned, test_batches(evaluator, self.splits), evaluator.task).quality
        seconds = {"proxies": measured - started, "tuning": time.perf_counter() - measured}
        return {"proxies": proxies, "tuned": quality, "seconds": seconds}

    def _cut(self, plan: PruningPlan, repair: str) -> nn.Module:
        """The plan's network with a repair, in float32."""
        return self.problem.evaluator.repaired(plan, self.repairs[repair]).eval()

    def _proxies(self, plan: PruningPlan, network: nn.Module) -> dict[str, float]:
        found = self._measured(network)
        proxies = {"accuracy": found.quality, "loss": found.loss, "params": float(plan.costs.params)}
        proxies["divergence"] = self._divergence(network, self._reward())
        proxies["mixed divergence"] = self._divergence(network, map(mixed, self._reward()))
        proxies["perturbed loss"] = float(np.mean([self._measured(perturbed(network, i)).loss for i in range(DRAWS)]))
        for steps in SHORT:
            after = self._measured(self._trained(network, 1, steps))
            proxies |= {f"accuracy after {steps}": after.quality, f"loss after {steps}": after.loss}
        return proxies

    def _reward(self) -> Iterator[Batch]:
        return self.splits.reward().to(self.problem.evaluator.device).batches(BATCH)

    def _measured(self, network: nn.Module) -> Any:
        return measure(network, self._reward(), self.problem.evaluator.task)

    def _divergence(self, network: nn.Module, batches: Iterator[Batch]) -> float:
        """The mean distance of a network's outputs from the dense network's, at temperature 1."""
        task, dense = self.problem.evaluator.task, self.problem.evaluator.model
        distances, counts = [], []
        with torch.no_grad():
            for batch in batches:
                ours, theirs = task.forward(network, batch), task.forward(dense, batch)
                distances.append(float(task.distillation(ours, theirs, batch, 1.0)))
                counts.append(len(batch.images))
        return float(np.average(distances, weights=counts))

    def _trained(self, network: nn.Module, epochs: int, steps: int | None = None) -> nn.Module:
        """A copy of a network after a training by the recipe; ``steps`` as `Batches`."""
        settings = self.settings.finetune.model_copy(update={"epochs": epochs})
        evaluator, seed = self.problem.evaluator, self.settings.seed
        batches = training_images(self.splits, settings, seed, Workers(evaluator.device), evaluator.task, steps)
        execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
        teacher = Teacher(copied(evaluator.model), self.answers) if settings.distillation else None
        trainer = Trainer(copied(network), batches, settings, seed, batches.workers, execution, teacher)
        for _ in range(epochs):
            trainer.run_epoch()
        return trainer.result.to(memory_format=evaluator.execution.memory_format).eval()


def mixed(batch: Batch) -> Batch:
    """Half of each image and half of the next one; the targets are not used."""
    return Batch(0.5 * (batch.images + batch.images.roll(1, 0)), batch.targets)


def perturbed(network: nn.Module, seed: int) -> nn.Module:
    """A copy of a network with noise on the weights of its layers."""
    generator = torch.Generator().manual_seed(seed)
    noisy = copied(network)
    with torch.no_grad():
        for weight in noisy.parameters():
            if weight.dim() > 1:
                noise: Tensor = torch.randn(weight.shape, generator=generator)
                weight.add_(NOISE * weight.square().mean().sqrt() * noise.to(weight.device))
    return noisy


def random_widths(problem: PruningProblem, seed: int, count: int) -> list[IntArray]:
    """Random widths at the budget, from nearly uniform to wild."""
    generator = np.random.default_rng(seed)
    return [problem.budget.random(generator, 0.1 + 0.5 * number / count) for number in range(count)]


def best_widths(problem: PruningProblem, run: RunDirectory, count: int) -> list[IntArray]:
    """Widths from the best tenth of a search's plans, evenly over it; the best ones if the tenth is too small."""
    trials = [row for row in run.evaluations(problem.quality_name) if row.kind not in ("probe", "uniform")]
    distinct = {tuple(row.widths.values()): row for row in sorted(trials, key=lambda row: row.reward)}
    best = sorted(distinct.values(), key=lambda row: -row.reward)[: max(count, len(distinct) // 10)]
    chosen = [best[place] for place in np.linspace(0, len(best) - 1, min(count, len(best))).round().astype(int)]
    return [np.array([row.widths[unit.name] for unit in problem.budget.units]) for row in chosen]


def records_of(root: Path) -> list[Measured]:
    """The measured plans of all parts."""
    return [row.as_record() for file in sorted(root.glob("plans-*.jsonl")) for row in read_records(file, PlanRow)]


def measure_missing(root: Path, settings: RunConfig, part: tuple[int, int], count: int, console: Console) -> None:
    """Measures the plans of a part that are not measured yet.

    Raises:
        RunError: If the search of the folder has other settings, or the plans of the folder are others.
    """
    run = RunDirectory.open(root / "search")
    if differing := differing_settings(RunConfig.load(run.config), settings):
        raise RunError(f"{str(root)!r} was started with other {', '.join(differing)}. Give another folder.")
    splits, problem = load_problem(settings_of(run), run)
    audit = Audit.of(settings_of(run), splits, problem, root / "teacher")
    groups = {"random": random_widths(problem, settings.seed, count), "search": best_widths(problem, run, count)}
    plans = [(group, widths) for group, listed in groups.items() for widths in listed]
    file = root / f"plans-{part[0]}-of-{part[1]}.jsonl"
    known = {row["number"]: row for row in records_of(root)}
    for number, (group, widths) in enumerate(plans):
        if number in known:
            if known[number]["widths"] != widths.tolist():
                raise RunError(f"{str(root)!r}: plan {number} has other widths. Give another folder.")
        elif number % part[1] == part[0] - 1:
            console.print(f"plan {number + 1} of {len(plans)}")
            found = audit.measure(problem.plan(widths))
            append_record(file, {"number": number, "group": group, "widths": widths.tolist(), **found})


def correlations(rows: Sequence[Measured], proxy: str, repair: str) -> tuple[RankCorrelation, RankCorrelation]:
    """The rank correlation of a proxy with the tuned quality, over all plans and within their better half.

    The better half is that of the plans' tuned qualities, the same one for all proxies.
    """
    sign = -1.0 if proxy in LESS_IS_BETTER else 1.0
    proxies = sign * np.array([row["proxies"][repair][proxy] for row in rows])
    tuned = np.array([row["tuned"] for row in rows])
    better = np.argsort(-tuned, kind="stable")[: len(rows) // 2]
    return rank_correlation(proxies, tuned), rank_correlation(proxies[better], tuned[better])


def table_of(rows: Sequence[Measured]) -> Table:
    """The table of all proxies, with and without least squares."""
    groups = {group: [row["tuned"] for row in rows if row["group"] == group] for group in ("random", "search")}
    means = ", ".join(f"{len(tuned)} {group} {100 * np.mean(tuned):.2f} %" for group, tuned in groups.items() if tuned)
    table = Table(box=SIMPLE, title=f"Rank correlation with the tuned quality. {means}", title_justify="left")
    for heading in ("proxy", "all", "all, least squares", "better half", "better half, least squares"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for proxy in rows[0]["proxies"][REPAIRS[0]]:
        found = [correlations(rows, proxy, repair) for repair in REPAIRS]
        table.add_row(proxy, *(in_words(found[column][half]) for half in (0, 1) for column in (0, 1)))
    return table


def in_words(found: RankCorrelation) -> str:
    """A correlation with its interval."""
    if found.value is None or found.low is None or found.high is None:
        return "undefined"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def main(arguments: list[str], count: int = PLANS) -> None:
    """Runs the search if needed, measures the missing plans, and prints the table."""
    config, root, *rest = arguments
    console = Console(width=120)
    part = next((word.removeprefix("part=") for word in rest if word.startswith("part=")), "1/1")
    number, of = (int(each) for each in part.split("/"))
    settings = RunConfig.load(config, [word for word in rest if not word.startswith("part=")])
    torch.set_num_threads(settings.execution.threads or 1)
    run_searches({Path(root) / "search": settings})
    measure_missing(Path(root), settings, (number, of), count, console)
    rows = records_of(Path(root))
    if len(rows) > 2:
        console.print(table_of(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
