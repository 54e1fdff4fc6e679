"""The data of a report: reads and checks the files of one run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.granularity import Granularity, make_granularity
from prune_env.granularity.base import Series
from prune_env.plan import PruningPlan
from prune_env.report.figures import Tried
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.starting import measurements_of
from prune_env.tasks import make_task, quality_of


class Quartiles(BaseModel):
    """Milliseconds per batch."""

    median: float
    q1: float
    q3: float


class RowRecord(BaseModel):
    """One network of the result table; qualities in [0, 1], MACs for one image."""

    name: str
    reward_quality: float
    test_quality: float | None = None
    macs: int = Field(ge=1)
    params: int = Field(ge=1)
    latency_ms: Quartiles | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_the_name_of_the_quality(cls, record: Any, info: ValidationInfo) -> Any:
        """Renames the task's own quality keys; the validation context holds the task's name for its quality."""
        if not isinstance(record, dict) or info.context is None:
            return record
        names = {f"{images}_{info.context['quality']}": f"{images}_quality" for images in ("reward", "test")}
        return {names.get(key, key): value for key, value in record.items()}


class SummaryBudget(BaseModel):
    """The metric, and the share of its dense cost that may remain."""

    metric: str
    keep: float


class SparsifyRecord(BaseModel):
    """The sparse training before the search; qualities in [0, 1] by name."""

    penalty: str
    epochs: int
    before: dict[str, float]
    after: dict[str, float]


class Summary(BaseModel):
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


class LayerEvidenceRecord(BaseModel):
    """The evidence for one layer, as `prune_env.protection.sensitivity.LayerEvidence`."""

    layer: str
    unit: str
    height: int
    width: int
    low_rank_share: float
    mean_rank: float
    histogram: list[int]


class SensitivityRecord(BaseModel):
    """``sensitivity.json``, as `prune_env.protection.sensitivity.SensitivityReport`."""

    layers: list[LayerEvidenceRecord]
    sensitive: dict[str, str]
    rank_threshold: float
    layer_threshold: float


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
    sensitivity: SensitivityRecord | None
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
    summary = _read(run.summary, Summary, quality_name)
    plan = PruningPlan.load(run.plan)
    channels = {unit.name: unit.channels for unit in plan.units}
    free = [unit.name for unit in plan.units if unit.protected is None]
    dense = summary.row("dense")
    tried = [Tried("dense", float("nan"), dense.reward_quality, 1.0)] if dense else []
    uniform: Mapping[str, int] | None = None
    history, series = [], []
    granularity = _granularity_of(run, config)
    for number, record in enumerate(run.evaluations(), start=1):
        try:
            kind, widths = str(record["kind"]), {name: int(width) for name, width in record["widths"].items()}
            macs_share = int(record["macs"]) / plan.costs.dense_macs
            quality = float(record[quality_name]) if record["images"] is None else nan
            tried.append(Tried(kind, float(record["reward"]), quality, macs_share))
            ratios = [widths[name] / channels[name] for name in free]
            drawn = granularity.series(record)
        except RunError as error:
            raise RunError(f"{str(run.root)!r}, line {number} of the evaluations: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{str(run.evaluations_file)!r} is damaged: line {number} is not an evaluation of the network in "
                f"{run.plan.name} ({error!r})"
            ) from None
        if kind == "uniform":
            uniform = widths
        if kind == summary.search:
            history.append(ratios)
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
        sensitivity=_read(run.sensitivity, SensitivityRecord, quality_name) if run.sensitivity.is_file() else None,
        pictures=run.pictures.read_bytes() if run.pictures.is_file() else None,
        settings=settings,
        versions=dict(_versions(settings)),
    )


def _granularity_of(run: RunDirectory, settings: RunConfig) -> Granularity:
    granularity, measured = make_granularity(settings.granularity), measurements_of(run, settings)
    return granularity if measured is None else granularity.restore(measured)


Model = TypeVar("Model", bound=BaseModel)


def _read(path: Path, model: type[Model], quality: str) -> Model:
    try:
        document: Any = json.loads(_text(path))
        return model.model_validate(document, context={"quality": quality})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise RunError(f"{str(path)!r} is damaged: {place}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{str(path)!r} is damaged: it cannot be read as JSON ({error})") from None


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
