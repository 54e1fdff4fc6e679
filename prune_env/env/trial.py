"""Trials: one plan tried, and what it came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prune_env.plan import PruningPlan
from rewards import Outcome


@dataclass(frozen=True)
class Trial:
    """One plan tried; two trials are equal if the same plan came to the same, whenever that was.

    Attributes:
        number: How many trials came before it in this problem.
        proposed_by: Who proposed it: ``probe`` for the evidence, ``uniform``, or the search's name.
        plan: The plan.
        outcome: What was measured.
        reward: What it is worth.
        cached: Whether the same plan had been measured before.
        seconds: Wall-clock seconds that it took.
        quality_name: What the task calls its quality; the key in records.
        recalled: Whether its outcome is an interrupted run's, and was not measured again.
        edits: What is recorded of the plan's edits; see `Granularity.record`.
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
    edits: Mapping[str, Any] = field(compare=False, default_factory=dict)

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
