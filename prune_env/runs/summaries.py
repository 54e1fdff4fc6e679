"""The parts of every ``summary.json`` that somebody reads, checked when they are read."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, create_model, model_validator

from prune_env.common.ranges import Count, CountFromZero, Duration, Latency, Quality, Share
from prune_env.common.records import Record, read_record, renamed
from prune_env.common.text import quoted
from prune_env.runs.networks import NetworkRow
from prune_env.runs.run_directory import RunDirectory
from prune_env.tasks import quality_of


class Part(Record):
    """A part of a file, of which some fields are read."""

    model_config = ConfigDict(extra="ignore")

    remedy = "Restore the file from a copy."


class Quartiles(Part):
    """Milliseconds per batch."""

    median: Latency
    q1: Latency
    q3: Latency


class RowRecord(Part):
    """One network of the result table; qualities in [0, 1], MACs for one image."""

    name: str
    reward_quality: Quality
    test_quality: Quality | None = None
    macs: Count
    params: Count
    latency_ms: Quartiles | None = None


def _named_once(rows: list[RowRecord]) -> list[RowRecord]:
    # The last network may have a rival's name: the search `uniform` stands beside the uniform plan.
    counts = Counter(row.name for row in rows[:-1])
    counts[rows[0].name] += len(rows) > 1 and rows[-1].name == rows[0].name
    if repeated := next((name for name, count in counts.items() if count > 1), None):
        raise ValueError(f"two rows are named {quoted(repeated)}")
    return rows


Rows = Annotated[list[RowRecord], Field(min_length=1), AfterValidator(_named_once)]
"""The networks of a result table, the dense one first, each but the last with a name of its own."""


def row_records(rows: Sequence[NetworkRow]) -> dict[str, RowRecord]:
    """Measured networks as a report reads them, by name."""
    return {row.name: _row_record(quality_of(row.task).name).model_validate(row.as_record()) for row in rows}


class SummaryBudget(Part):
    """The metric, the share of its dense cost that may remain, and the shares of other metrics to be met besides."""

    metric: str
    keep: Share
    also: dict[str, Share] = Field(default_factory=dict)


class SparsifyRecord(Part):
    """The sparse training before the search; qualities in [0, 1] by name."""

    penalty: str
    epochs: CountFromZero
    before: dict[str, Quality]
    after: dict[str, Quality]


class Summary(Part):
    """The keys of a search's ``summary.json`` that are read."""

    model: str
    search: str
    budget: SummaryBudget
    rows: Rows
    threads: Count
    device: str
    batch_size: CountFromZero
    episodes: CountFromZero
    evaluations: CountFromZero
    seconds: Duration
    seconds_per_evaluation: Duration
    command: str
    sparsify: SparsifyRecord | None = None

    def row(self, name: str) -> RowRecord | None:
        """The row with this name, or None."""
        return next((row for row in self.rows if row.name == name), None)


class TrainingSummary(Part):
    """The keys of a fine-tuning's ``summary.json`` that a report reads."""

    rows: Rows
    seconds: Duration


class Execution(Part):
    """The execution settings of a training."""

    dtype: Literal["float32", "bfloat16"]


class RecoverySummary(TrainingSummary):
    """The keys of a fine-tuning's ``summary.json`` that a comparison of fine-tunings reads.

    The rows are the dense, the cut and the fine-tuned network, measured on the test set.
    """

    execution: Execution
    rows: Annotated[Rows, Field(min_length=3, max_length=3)]

    @model_validator(mode="after")
    def _tested(self) -> Self:
        if any(row.test_quality is None for row in self.rows):
            raise ValueError("rows: the comparison needs the quality on test images, but the run has none")
        return self


class ComparedSummary(Part):
    """The keys of a search's ``summary.json`` that a comparison of searches reads.

    Attributes:
        best_after: The best network's quality on the reward set, in [0, 1], by number of evaluations.
        rows: The measured networks; the last is the search's best, measured on the test set.
        seconds: Seconds of the search.
    """

    best_after: dict[str, Quality]
    rows: Rows
    seconds: Duration

    remedy = (
        "It is not of a comparison's run: another command wrote it, or a comparison with another number of "
        "evaluations. Remove this file; the comparison then writes it again."
    )


S = TypeVar("S", Summary, TrainingSummary, RecoverySummary, ComparedSummary)


@cache
def named(kind: type[S], quality: str) -> type[S]:
    """Returns the class of a summary's file, in whose rows the qualities have the task's name.

    Args:
        kind: The class of the summary.
        quality: The task's name for its quality.
    """
    rows: Any = list[_row_record(quality)]  # type: ignore[misc]
    return create_model(kind.__name__, __base__=kind, rows=(rows, kind.model_fields["rows"]))


def read_summary(run: RunDirectory, quality: str) -> dict[str, Any]:
    """Returns the whole content of the ``summary.json`` of a finished search, checked.

    Args:
        run: The run.
        quality: The task's name for its quality.

    Raises:
        RunError: If the file is missing, damaged or changed.
    """
    read_record(run.summary, named(Summary, quality))
    return run.read_json(run.summary)


def _row_record(quality: str) -> type[RowRecord]:
    return renamed(RowRecord, reward_quality=f"reward_{quality}", test_quality=f"test_{quality}")
