"""The parts of a run's JSON files that its report shows, checked when they are read."""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, create_model

from prune_env.common.records import Record, renamed
from prune_env.runs.networks import NetworkRow
from prune_env.tasks import quality_of


class Shown(Record):
    """A part of a file, of which the report shows some fields."""

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


def row_records(rows: Sequence[NetworkRow]) -> dict[str, RowRecord]:
    """Measured networks as a report reads them, by name."""
    return {row.name: _row_record(quality_of(row.task).name).model_validate(row.as_record()) for row in rows}


class SummaryBudget(Shown):
    """The metric, the share of its dense cost that may remain, and the shares of other metrics to be met besides."""

    metric: str
    keep: float
    also: dict[str, float] = Field(default_factory=dict)


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


class TrainingSummary(Shown):
    """The keys of a fine-tuning's ``summary.json`` that the report shows."""

    rows: list[RowRecord] = Field(min_length=1)
    seconds: float


S = TypeVar("S", Summary, TrainingSummary)


@cache
def named(kind: type[S], quality: str) -> type[S]:
    """Returns the class of a summary's file, in whose rows the qualities have the task's name.

    Args:
        kind: The class of the summary.
        quality: The task's name for its quality.
    """
    rows: Any = list[_row_record(quality)]  # type: ignore[misc]
    return create_model(kind.__name__, __base__=kind, rows=(rows, kind.model_fields["rows"]))


def _row_record(quality: str) -> type[RowRecord]:
    return renamed(RowRecord, reward_quality=f"reward_{quality}", test_quality=f"test_{quality}")
