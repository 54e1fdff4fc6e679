"""The parts of a run's JSON files that its report shows, checked when they are read."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from prune_env.plan import PruningPlan
from prune_env.runs.networks import NetworkRow
from prune_env.tasks import quality_of


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


def row_records(rows: Sequence[NetworkRow]) -> dict[str, RowRecord]:
    """Measured networks as a report reads them, by name."""
    return {
        row.name: RowRecord.model_validate(row.as_record(), context={"quality": quality_of(row.task).name})
        for row in rows
    }


class SummaryBudget(BaseModel):
    """The metric, the share of its dense cost that may remain, and the shares of other metrics to be met besides."""

    metric: str
    keep: float
    also: dict[str, float] = Field(default_factory=dict)


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


class DenseRecord(BaseModel):
    """The dense network in ``problem.json``: its outcome on the reward set (None if not known); latency in seconds."""

    quality: float | None = None
    loss: float | None = None
    macs: int = Field(ge=1)
    params: int = Field(ge=1)
    latency: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_the_name_of_the_quality(cls, record: Any, info: ValidationInfo) -> Any:
        if not isinstance(record, dict) or info.context is None:
            return record
        return {"quality" if key == info.context["quality"] else key: value for key, value in record.items()}


class UnitRecord(BaseModel):
    """One unit in ``problem.json``.

    Attributes:
        name: The unit's name.
        channels: Its channels in the dense network.
        protected: Why it is protected; None for a free unit.
        saves: By metric the share of the dense cost that its cut to the least width saves; empty if not known.
    """

    name: str
    channels: int = Field(ge=1)
    protected: str | None = None
    saves: dict[str, float] = Field(default_factory=dict)


class ProblemRecord(BaseModel):
    """``problem.json``, as `prune_env.env.problem.PruningProblem.as_record`; runs of earlier releases have none."""

    dense: DenseRecord
    units: list[UnitRecord]

    @classmethod
    def of_plan(cls, plan: PruningPlan) -> Self:
        """What a plan says about its problem: the units, but neither the dense network's quality nor savings."""
        dense = DenseRecord(macs=plan.costs.dense_macs, params=plan.costs.dense_params)
        named = ((unit.name, unit.channels, unit.protected) for unit in plan.units)
        return cls(dense=dense, units=[UnitRecord(name=n, channels=c, protected=why) for n, c, why in named])


class TrainingSummary(BaseModel):
    """The keys of a fine-tuning's ``summary.json`` that the report shows."""

    rows: list[RowRecord] = Field(min_length=1)
    seconds: float


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
