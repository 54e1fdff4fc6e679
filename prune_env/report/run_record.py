"""The data of a report: reads and checks the files of one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from prune_env.common.errors import RunError
from prune_env.common.records import Record, checked, read_record
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.granularity import Granularity, make_granularity
from prune_env.granularity.base import Series
from prune_env.plan import PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.report.figures import Tried
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.starting import measurements_of
from prune_env.tasks import make_task, quality_of


class Shown(Record):
    """A part of ``summary.json``, of which the report shows some fields."""

    model_config = ConfigDict(extra="ignore")

    remedy = "Restore the file from a copy."


class Quartiles(Shown):
    """Milliseconds per batch."""

    median: float
    q1: float
    q3: float


class RowRecord(Shown):
    """One network of the result table; qualities in [0, 1], MACs for one image."""

    name: str
    reward_quality: float
    test_quality: float | None = None
    macs: int = Field(ge=1)
    params: int = Field(ge=1)
    latency_ms: Quartiles | None = None


class SummaryBudget(Shown):
    """The metric, and the share of its dense cost that may remain."""

    metric: str
    keep: float


class SparsifyRecord(Shown):
    """The sparse training before the search; qualities in [0, 1] by name."""

    penalty: str
    epochs: int
    before: dict[str, float]
    after: dict[str, float]


class Summary(Shown):
    """The keys of ``summary.json`` that the report shows."""

    model: str
    search: str
    budget: SummaryBudget
    rows: list[RowRecord] = Field(min_length=1)
    threads: int
    device: str
    batch_size: int
    episodes: int
    evaluations: int
    seconds: float
    seconds_per_evaluation: float
    command: str
    sparsify: SparsifyRecord | None = None

    def row(self, name: str) -> RowRecord | None:
        """The row with this name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def title(self) -> str:
        """The model and its budget in words."""
        metric = "MACs" if self.budget.metric == "macs" else self.budget.metric
        return f"{self.model} at {self.budget.keep:.0%} of the {metric}"


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        summary: The result in numbers.
        quality: The task's name for its quality.
        plan: The search's best plan.
        tried: All tried plans, the dense network first.
        uniform: Widths of the uniform plan by unit name; None if it was not tried.
        history: Keep ratios of the search's plans, [episodes, free units]; may have no rows.
        free: Names of the free units.
        granularity: The granularity, with the measurements of the run.
        series: The granularity's own numbers to plot, for each of the search's plans.
        sensitivity: The evidence for sensitive layers; None if ``sensitivity.enabled`` was off.
        pictures: The networks' outputs on a few images as a PNG; None if the task draws no pictures.
        settings: The text of ``config.yaml``.
        versions: Versions of the packages that made the run.
    """

    summary: Summary
    quality: str
    plan: PruningPlan
    tried: list[Tried]
    uniform: Mapping[str, int] | None
    history: npt.NDArray[np.float64]
    free: list[str]
    granularity: Granularity
    series: list[Series]
    sensitivity: SensitivityReport | None
    pictures: bytes | None
    settings: str
    versions: Mapping[str, str]


def read_run(run: RunDirectory, trust: Trust = NOTHING) -> RunRecord:
    """Reads the files of a finished run.

    Args:
        run: The run.
        trust: The code that the run's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the run is not finished, or one of its files is damaged.
        PlanError: If the plan is missing or damaged.
    """
    if not run.summary.is_file():
        raise RunError(
            f"{str(run.root)!r} has no {run.summary.name}, which a run writes when its search ends: there is nothing "
            "to report yet. Let the run finish, then write the report again."
        )
    config = run.settings(trust=trust)
    quality_name = quality_of(make_task(config.task)).name
    summary = _summary_of(run, quality_name)
    plan = PruningPlan.load(run.plan)
    channels = {unit.name: unit.channels for unit in plan.units}
    free = [unit.name for unit in plan.units if unit.protected is None]
    dense = summary.row("dense")
    tried = [Tried("dense", float("nan"), dense.reward_quality, 1.0)] if dense else []
    uniform: Mapping[str, int] | None = None
    history, series = [], []
    granularity = _granularity_of(run, config)
    for number, record in enumerate(run.evaluations(quality_name), start=1):
        where = f"{str(run.evaluations_file)!r}, line {number} is damaged"
        if record.widths.keys() != set(free) or any(record.widths[name] > channels[name] for name in free):
            raise RunError(f"{where}: widths: they are not of the network in {run.plan.name}. {record.remedy}")
        quality = record.quality if record.images is None else nan
        tried.append(Tried(record.kind, record.reward, quality, record.macs / plan.costs.dense_macs))
        try:
            drawn = granularity.series(record.edits)
        except RunError as error:
            raise RunError(f"{where}: {error}") from None
        if record.kind == "uniform":
            uniform = record.widths
        if record.kind == summary.search:
            history.append([record.widths[name] / channels[name] for name in free])
            series.append(drawn)
    settings = _text(run.config)
    return RunRecord(
        summary=summary,
        quality=quality_name,
        plan=plan,
        tried=tried,
        uniform=uniform,
        history=np.array(history, dtype=np.float64).reshape(len(history), len(free)),
        free=free,
        granularity=granularity,
        series=series,
        sensitivity=read_record(run.sensitivity, SensitivityReport) if run.sensitivity.is_file() else None,
        pictures=run.pictures.read_bytes() if run.pictures.is_file() else None,
        settings=settings,
        versions=dict(_versions(settings)),
    )


def _granularity_of(run: RunDirectory, settings: RunConfig) -> Granularity:
    granularity, measured = make_granularity(settings.granularity), measurements_of(run, settings)
    return granularity if measured is None else granularity.restore(measured)


def _summary_of(run: RunDirectory, quality: str) -> Summary:
    """The summary; in the file, the qualities of its rows have the task's name."""
    document = run.read_json(run.summary)
    names = {f"{images}_{quality}": f"{images}_quality" for images in ("reward", "test")}
    if isinstance(rows := document.get("rows"), list):
        document["rows"] = [
            {names.get(key, key): value for key, value in row.items()} if isinstance(row, dict) else row for row in rows
        ]
    return checked(document, Summary, repr(str(run.summary)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from None


def _versions(settings: str) -> list[tuple[str, str]]:
    """Package names and versions from the comments that `RunDirectory.write_config` puts above the settings."""
    versions = []
    for line in settings.splitlines():
        name, _, version = line.removeprefix("# ").partition(" ")
        if not line.startswith("# ") or not version:
            break
        versions.append((name, version))
    return versions
