"""Compares criteria: each one cuts the network to the uniform widths, and the remaining quality is measured."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prune_env.common.errors import ConfigError, RunError, UserError
from prune_env.common.files import atomic_write, to_json
from prune_env.common.ranges import Duration, Quality
from prune_env.common.records import Record, append_record, read_records
from prune_env.config import RunConfig
from prune_env.config.trust import Trust
from prune_env.criteria import score_channels
from prune_env.data import Splits
from prune_env.env.builders import make_repair
from prune_env.env.loading import check_names, device_of, refuse_sparse_training
from prune_env.env.problem import PruningProblem
from prune_env.plan import PruningPlan
from prune_env.recover import train_network
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import differing_settings, settings_of
from prune_env.runs.starting import OnDense, OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.tasks import make_task, quality_of

MEASURES = ("cut", "recalibrated", "repaired", "tuned")
"""Qualities of a cut network on the reward set, in the order of measurement."""


class CriterionRecord(Record):
    """One line of ``criteria.jsonl``: the qualities of a network that a criterion cut, see `MEASURES`.

    Attributes:
        criterion: The criterion.
        seconds: Seconds that its scores took.
        cut: The network as it was cut.
        recalibrated: After the recalibration of its batch norms.
        repaired: After a repair by least squares.
        tuned: After a short fine-tuning.
    """

    criterion: str
    seconds: Duration
    cut: Quality
    recalibrated: Quality
    repaired: Quality
    tuned: Quality


@dataclass
class CriterionComparison:
    """The remaining quality of a network with each criterion.

    Attributes:
        model: The network's name.
        metric: The metric of the budget.
        keep: The share of the dense cost that may remain, in (0, 1].
        quality: The task's name for its quality.
        spent: The share of the dense cost that the uniform widths have, in [0, 1].
        dense: The dense network's quality on the reward set, one per seed.
        records: The measurements of each criterion, one record per seed.
        left_out: The reason why a criterion refused the network, by the criterion's name.
        peak_memory_gb: The peak memory of the process in GB.
    """

    model: str
    metric: str
    keep: float
    quality: str
    spent: float = 0.0
    dense: list[float] = field(default_factory=list)
    records: dict[str, list[CriterionRecord]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    peak_memory_gb: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """The comparison as plain data, for ``criteria.json``."""
        return {
            "model": self.model,
            "budget": {"metric": self.metric, "keep": self.keep, "spent": self.spent},
            "dense": sum(self.dense) / len(self.dense),
            "criteria": {name: _summary(rows) for name, rows in self.records.items() if rows},
            "peak_memory_gb": self.peak_memory_gb,
        }


def compare_criteria(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: int,
    on_progress: OnProgress = quietly,
    on_dense: OnDense = quietly,
) -> CriterionComparison:
    """Cuts a network to the uniform widths by each criterion and measures its quality; resumes in an existing folder.

    Args:
        settings: The settings; ``fidelity`` sets the fine-tuning of the cut networks.
        folder: The folder of the records, one run directory per seed; ``criteria.json`` is written into it.
        names: Criteria. A criterion that refuses the network is left out.
        seeds: Number of seeds; the first is the configuration's. The seed also draws the images.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of each seed's dense network.

    Raises:
        DoubtfulNetworkError: If cuts of the dense network make no sense.
        ConfigError: If every criterion refuses the network.
        RunError: If the folder holds criteria that were measured with other settings.
    """
    check_names(settings)
    refuse_sparse_training(settings)
    quality = quality_of(make_task(settings.task)).name
    found = CriterionComparison(settings.model.name, settings.budget.metric, settings.budget.keep, quality)
    found.records = {name: [] for name in names}
    for seed in range(settings.seed, settings.seed + seeds):
        # The problem needs scores that this comparison never uses: take the cheapest criterion.
        section = settings.criterion.model_copy(update={"name": "l1"})
        seeded = settings.model_copy(update={"seed": seed, "criterion": section})
        _measure_seed(found, RunDirectory(folder / f"seed-{seed}"), seeded, on_progress, on_dense)
    if not any(found.records.values()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
        raise ConfigError(f"--criteria: every criterion given was left out ({reasons}). Give another.")
    found.peak_memory_gb = peak_memory_gb()
    atomic_write(folder / "criteria.json", to_json(found.as_record()).encode())
    return found


def _measure_seed(
    found: CriterionComparison, run: RunDirectory, settings: RunConfig, on_progress: OnProgress, on_dense: OnDense
) -> None:
    """Measures the missing criteria of one seed, then adds its records and the dense quality."""
    started = run.config.is_file()
    trust = Trust.of(settings).also(found.records)
    if started and differing_settings(_nameless(run.settings(trust=trust)), _nameless(settings)):
        raise RunError(f"{str(run.root)!r} holds criteria of other settings. Give another folder by run.directory=...")
    base, earlier = (settings_of(run, trust=trust), run) if started else (settings, None)
    splits, problem = load_problem(base, earlier, on_progress, on_dense)
    problem.budget.refuse_widths("the comparison of criteria")
    if started:
        check_same_start(run, splits, problem)
    else:
        run = start_run(run.root, settings, splits, problem)
    file = run.root / "criteria.jsonl"
    measured = {record.criterion for record in read_records(file, CriterionRecord)}
    missing = [name for name in found.records if name not in measured]
    with run.held():
        on_progress("measuring the inputs of layers, for the repair")
        bench = _Bench(settings, splits, problem) if missing else None
        for name in missing:
            on_progress(f"seed {settings.seed}, {name}")
            try:
                assert bench is not None
                append_record(file, bench.measure(name).as_record())
            except UserError as error:
                found.left_out[name] = str(error)
    records = read_records(file, CriterionRecord)
    for name, rows in found.records.items():
        rows += [record for record in records if record.criterion == name]
    found.dense.append(problem.evaluator.measure(problem.evaluator.pruned(problem.walk.plan({}))))
    found.spent = problem.budget.cost(problem.budget.uniform()) / problem.budget.dense


def peak_memory_gb() -> float:
    """The peak memory of this process in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class _Bench:
    """Measures criteria on one problem."""

    def __init__(self, settings: RunConfig, splits: Splits, problem: PruningProblem) -> None:
        self.settings = settings
        self.splits = splits
        self.problem = problem
        self.widths = problem.budget.names(problem.budget.uniform())
        section = settings.repair.model_copy(update={"name": "least_squares"})
        self.fitting = make_repair(settings.model_copy(update={"repair": section}), splits, problem.walk)

    def measure(self, name: str) -> CriterionRecord:
        """Scores the channels, then measures the network cut, recalibrated, repaired and fine-tuned."""
        started = time.perf_counter()
        # A new context folds the network again: the time of a criterion includes the folding.
        scores = score_channels(name, replace(self.problem.context))
        seconds = time.perf_counter() - started
        qualities = self._qualities(self.problem.walk.plan(self.widths, scores))
        return CriterionRecord(criterion=name, seconds=seconds, **qualities)

    def _qualities(self, plan: PruningPlan) -> dict[str, float]:
        evaluator = self.problem.evaluator
        network = evaluator.repaired(plan, None)
        qualities = {
            "cut": evaluator.measure(plan.apply(self.problem.walk.model).to(evaluator.device)),
            "recalibrated": evaluator.measure(network),
            "repaired": evaluator.measure(evaluator.repaired(plan, self.fitting)),
        }
        few = replace(self.splits, train_indices=self.splits.train_indices[: self.settings.fidelity.images])
        training, device = self.settings.fidelity.training(), device_of(self.settings)
        train_network(network, few, training, self.settings.seed, device, evaluator.task)
        return {**qualities, "tuned": evaluator.measure(network.to(evaluator.device))}


def _nameless(settings: RunConfig) -> RunConfig:
    """The settings without the criterion's name, which all records of a folder share."""
    criterion = settings.criterion.model_copy(update={"name": ""})
    return settings.model_copy(update={"criterion": criterion})


def _summary(rows: Sequence[CriterionRecord]) -> dict[str, Any]:
    means = {key: sum(getattr(row, key) for row in rows) / len(rows) for key in (*MEASURES, "seconds")}
    return {**means, "seeds": [row.model_dump(include=set(MEASURES)) for row in rows]}
