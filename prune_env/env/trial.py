"""Trials: one plan tried, with its outcome and reward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prune_env.plan import PruningPlan
from prune_env.rewards import Outcome


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
        proposed_by: Who proposed the plan: ``probe`` (for the evidence), ``uniform``, the search's name, or ``rung``
            for a plan of the search that is measured again after a short training.
        plan: The plan.
        outcome: The measurements.
        reward: The reward of the outcome.
        cached: Whether an earlier trial of the search had the outcome.
        seconds: Wall-clock seconds of the measurement.
        quality_name: The task's name for its quality; the key in records.
        recalled: Whether the outcome was read from the records of an interrupted run.
        borrowed: Whether another search of the same problem measured the plan; the seconds are those of then.
        edits: The record of the plan's edits (`Granularity.record`).
        steps: Steps for which the plan's network was trained before it was measured; 0 for none.
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
    steps: int = 0

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
            **({"steps": self.steps} if self.steps else {}),
            "widths": {unit.name: len(unit.kept) for unit in self.plan.units if unit.protected is None},
            **{name: value for name, value in self.edits.items() if value is not None},
        }
