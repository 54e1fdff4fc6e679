"""`prune-env compare --criteria`: the same widths with every criterion."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from prune_env.common.errors import ConfigError, RunError, UserError, suggest
from prune_env.common.files import append_record, atomic_write, read_records
from prune_env.config import RunConfig
from prune_env.criteria import CRITERIA, known_criteria, score_channels
from prune_env.data import Splits
from prune_env.env.builders import make_repair
from prune_env.env.loading import device_of
from prune_env.env.problem import PruningProblem
from prune_env.plan import PruningPlan
from prune_env.recover import train
from prune_env.report.search_comparison import Interval
from prune_env.runs.directory import RunDirectory
from prune_env.runs.searching import check_same_start, differing_settings, prepare, settings_of, start_run
from prune_env.surgery import Repair
from scripts.common import between_commas, console, print_json, results, to_json

Record = dict[str, Any]

MEASURES = {
    "cut": "right after the cut",
    "recalibrated": "recalibrated",
    "merged": "merged",
    "repaired": "least squares",
    "tuned": "fine-tuned",
}
"""Accuracies of a cut network on the reward set, in the order in which a network comes by them."""


def names_of(given: str) -> list[str]:
    """The criteria of a list with commas; ``all`` for every one.

    Raises:
        ConfigError: If there is no such criterion, or none is named.
    """
    names = between_commas(given)
    if names == ["all"]:
        return known_criteria()
    for name in names:
        if name not in CRITERIA:
            raise ConfigError(f"--criteria: there is no criterion {name!r}; {suggest(name, CRITERIA)}, or all.")
    if not names:
        raise ConfigError(f"--criteria: none given; allowed are all, or {', '.join(known_criteria())}.")
    return names


def measure_criteria(folder: Path, settings: RunConfig, names: Sequence[str], seeds: int, as_json: bool) -> None:
    """Cuts a network to the uniform widths by every criterion, and measures what is left; goes on where it was.

    Args:
        folder: Where the records are kept, in a run directory for each seed.
        settings: The run's settings; ``fidelity`` says how the cut networks are fine-tuned.
        names: Criteria.
        seeds: How many seeds, from the configuration's on; a seed also draws the images.
        as_json: Whether to print JSON.
    """
    dense: list[float] = []
    found: dict[str, list[Record]] = {name: [] for name in names}
    for seed in range(settings.seed, settings.seed + seeds):
        run = RunDirectory(folder / f"seed-{seed}")
        # A problem needs scores, which are not looked at here: those that cost nothing.
        section = settings.criterion.model_copy(update={"name": "l1"})
        seeded = settings.model_copy(update={"seed": seed, "criterion": section})
        records, accuracy, spent = _measure_seed(run, seeded, names)
        dense.append(accuracy)
        for name in names:
            found[name] += [record for record in records if record["criterion"] == name]
    if not any(found.values()):
        raise ConfigError("--criteria: every criterion given was left out, for the reasons above. Give another.")
    record = {
        "model": settings.model.name,
        "budget": {"metric": settings.budget.metric, "keep": settings.budget.keep, "spent": spent},
        "dense": sum(dense) / len(dense),
        "criteria": {name: _summary(rows) for name, rows in found.items() if rows},
        "peak_memory_gb": peak_memory_gb(),
    }
    atomic_write(folder / "criteria.json", to_json(record).encode())
    if as_json:
        print_json(record)
    else:
        results.print(_table(record, found))


def _measure_seed(run: RunDirectory, settings: RunConfig, names: Sequence[str]) -> tuple[list[Record], float, float]:
    """The records of one seed, those that are missing measured now, the dense accuracy, and the share that is spent."""
    started = run.config.is_file()
    if started and differing_settings(_nameless(RunConfig.load(run.config)), _nameless(settings)):
        raise RunError(f"{str(run.root)!r} holds criteria of other settings: give another folder by run.directory=...")
    splits, problem = prepare(settings_of(run), run) if started else prepare(settings)
    if started:
        check_same_start(run, splits, problem)
    else:
        run = start_run(run.root, settings, splits, problem)
    file = run.root / "criteria.jsonl"
    missing = [name for name in names if name not in {record["criterion"] for record in read_records(file)}]
    with run.held(), console.status("measuring what layers read, for the repair") as status:
        bench = _Bench(settings, splits, problem) if missing else None
        for name in missing:
            status.update(f"seed {settings.seed}, {name}")
            try:
                assert bench is not None
                append_record(file, bench.measure(name))
            except UserError as error:
                console.print(f"{name} is left out: {error}", markup=False, highlight=False)
    spent = problem.budget.form.cost(problem.budget.uniform()) / problem.budget.dense
    return read_records(file), problem.evaluator.measure(problem.evaluator.pruned(problem.walk.plan({}))), spent


def peak_memory_gb() -> float:
    """The most memory that this process has held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class _Bench:
    """Measures one criterion after the other on one problem."""

    def __init__(self, settings: RunConfig, splits: Splits, problem: PruningProblem) -> None:
        self.settings = settings
        self.splits = splits
        self.problem = problem
        self.widths = problem.budget.names(problem.budget.uniform())
        self.merging, self.fitting = (self._repair(name) for name in ("merge", "least_squares"))

    def _repair(self, name: str) -> Repair | None:
        section = self.settings.repair.model_copy(update={"name": name})
        return make_repair(self.settings.model_copy(update={"repair": section}), self.splits, self.problem.walk)

    def measure(self, name: str) -> Record:
        """Scores, cuts, recalibrates, repairs and fine-tunes."""
        started = time.perf_counter()
        # A subject of its own: folding the network is part of what a criterion costs.
        scores = score_channels(name, replace(self.problem.context))
        seconds = time.perf_counter() - started
        return {"criterion": name, "seconds": seconds, **self._accuracies(self.problem.walk.plan(self.widths, scores))}

    def _accuracies(self, plan: PruningPlan) -> dict[str, float]:
        evaluator = self.problem.evaluator
        network = evaluator.repaired(plan, None)
        found = {
            "cut": evaluator.measure(plan.apply(self.problem.walk.model).to(evaluator.device)),
            "recalibrated": evaluator.measure(network),
            "merged": evaluator.measure(evaluator.repaired(plan, self.merging)),
            "repaired": evaluator.measure(evaluator.repaired(plan, self.fitting)),
        }
        few = replace(self.splits, train_indices=self.splits.train_indices[: self.settings.fidelity.images])
        train(network, few, self.settings.fidelity, self.settings.seed, device_of(self.settings), evaluator.task)
        return {**found, "tuned": evaluator.measure(network.to(evaluator.device))}


def _nameless(settings: RunConfig) -> RunConfig:
    """The settings that all records of a folder have in common: whatever the criterion."""
    criterion = settings.criterion.model_copy(update={"name": ""})
    return settings.model_copy(update={"criterion": criterion})


def _summary(rows: Sequence[Record]) -> dict[str, Any]:
    means = {key: sum(row[key] for row in rows) / len(rows) for key in (*MEASURES, "seconds")}
    return {**means, "seeds": [{key: row[key] for key in MEASURES} for row in rows]}


def _table(record: Mapping[str, Any], found: Mapping[str, Sequence[Record]]) -> Table:
    """Criteria by their accuracy after recalibration, the best first."""
    budget = record["budget"]
    metric = "MACs" if budget["metric"] == "macs" else budget["metric"]
    title = (
        f"{record['model']} ({record['dense']:.2%}), uniform widths that take {budget['spent']:.1%} of the {metric} "
        f"where {budget['keep']:.0%} are allowed: accuracy on the reward set, in %"
    )
    table = Table(box=SIMPLE, title=title, title_justify="left")
    table.add_column("criterion")
    for words in (*MEASURES.values(), "seconds to score"):
        table.add_column(words, justify="right")
    for name in sorted(record["criteria"], key=lambda name: -record["criteria"][name]["recalibrated"]):
        intervals = (str(Interval.of([row[key] for row in found[name]])) for key in MEASURES)
        table.add_row(name, *intervals, f"{record['criteria'][name]['seconds']:.1f}")
    return table
