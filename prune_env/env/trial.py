"""Trials: one plan tried, with its outcome and reward."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, JsonValue

from prune_env.common.ranges import Count, CountFromZero, Duration, Latency, Quality
from prune_env.common.records import Record, checked, renamed
from prune_env.plan import PruningPlan
from prune_env.rewards import Outcome


class MeasuredRecord(Record):
    """The measurement of a plan, as a line of a file.

    In files, `quality` has the task's name for it (`prune_env.common.records.renamed`), and the fields of `edits` stand
    beside the others.

    Attributes:
        number: Number of earlier trials; None in files of earlier releases.
        kind: Who proposed the plan.
        quality: The task's quality, in [0, 1].
        loss: The loss, in nats.
        images: Reward images that were measured; None for all.
        cached: Whether an earlier trial of the search had the outcome.
        seconds: Wall-clock seconds of the measurement.
        widths: The width of each free unit, 1 or more.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    number: CountFromZero | None = None
    kind: str
    quality: Quality
    loss: float
    images: Count | None
    cached: bool
    seconds: Duration
    widths: dict[str, Count]

    @property
    def edits(self) -> dict[str, JsonValue]:
        """The record of the plan's edits (`Granularity.record`), without fields that the plan does not have."""
        return self.__pydantic_extra__


class ArrivedRecord(MeasuredRecord):
    """One line of a run's ``arrived.jsonl``: a measurement that came before its turn."""

    remedy = "Remove the file; the run then measures these plans again."

    number: CountFromZero


class TrialRecord(MeasuredRecord):
    """One line of a run's ``evaluations.jsonl``: a trial.

    Attributes:
        reward: The reward of the outcome.
        macs: MACs of the plan's network for one image.
        params: Number of weights of the plan's network.
        latency: Seconds of a batch, by the formula; None if neither budget nor reward needs it.
    """

    reward: float
    macs: Count
    params: Count
    latency: Latency | None = None


@dataclass(frozen=True)
class Measured:
    """The measurement of one plan, as a worker sends it.

    Attributes:
        outcome: The measurements.
        seconds: Wall-clock seconds of the measurement.
        borrowed: Whether another search of the same problem made it.
    """

    outcome: Outcome
    seconds: float
    borrowed: bool = False


@dataclass(frozen=True)
class Trial:
    """One plan tried. Two trials are equal if proposer, plan, outcome and reward are equal.

    Attributes:
        number: Number of earlier trials of this problem.
        proposed_by: Who proposed the plan: ``probe`` (for the evidence), ``uniform``, or the search's name.
        plan: The plan.
        outcome: The measurements.
        reward: The reward of the outcome.
        cached: Whether an earlier trial of the search had the outcome.
        seconds: Wall-clock seconds of the measurement.
        quality_name: The task's name for its quality; the key in records.
        recalled: Whether the outcome was read from the records of an interrupted run.
        borrowed: Whether another search of the same problem measured the plan; the seconds are those of then.
        edits: The record of the plan's edits (`Granularity.record`).
    """

    number: int = field(compare=False)
    proposed_by: str
    plan: PruningPlan
    outcome: Outcome
    reward: float
    cached: bool = field(compare=False)
    seconds: float = field(compare=False)
    quality_name: str = field(compare=False)
    recalled: bool = field(compare=False, default=False)
    borrowed: bool = field(compare=False, default=False)
    edits: Mapping[str, Any] = field(compare=False, default_factory=dict)

    def record(self) -> TrialRecord:
        """The trial as a resumed run reads it."""
        line = json.loads(json.dumps(self.as_record()))
        return checked(line, renamed(TrialRecord, quality=self.quality_name), f"trial {self.number}")

    def as_record(self) -> dict[str, Any]:
        """One line of a run's ``evaluations.jsonl``; protected units are left out."""
        return {
            "number": self.number,
            "kind": self.proposed_by,
            "reward": self.reward,
            self.quality_name: self.outcome.quality,
            "loss": self.outcome.loss,
            "macs": self.outcome.macs,
            "params": self.outcome.params,
            "latency": self.outcome.latency,
            "cached": self.cached,
            "images": self.outcome.images,
            "seconds": round(self.seconds, 4),
            "widths": {unit.name: len(unit.kept) for unit in self.plan.units if unit.protected is None},
            **{name: value for name, value in self.edits.items() if value is not None},
        }
