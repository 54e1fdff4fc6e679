"""Trials: one plan tried, and what it came to."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from prune_env.plan import PruningPlan
from rewards import Outcome


@dataclass(frozen=True)
class Trial:
    """One set of widths tried; two trials are equal if the same plan came to the same, whenever that was.

    Attributes:
        number: How many trials came before it in this problem.
        proposed_by: Who proposed it: ``probe`` for the evidence, ``uniform``, or the search's name.
        plan: The plan.
        outcome: What was measured.
        reward: What it is worth.
        cached: Whether the same plan had been measured before.
        seconds: Wall-clock seconds that it took.
        recalled: Whether its outcome is an interrupted run's, and was not measured again.
    """

    number: int = field(compare=False)
    proposed_by: str
    plan: PruningPlan
    outcome: Outcome
    reward: float
    cached: bool = field(compare=False)
    seconds: float = field(compare=False)
    recalled: bool = field(compare=False, default=False)

    def as_record(self) -> dict[str, Any]:
        """One line of a run's ``evaluations.jsonl``; protected units are left out."""
        return {
            "number": self.number,
            "kind": self.proposed_by,
            "reward": self.reward,
            "accuracy": self.outcome.accuracy,
            "loss": self.outcome.loss,
            "macs": self.outcome.macs,
            "params": self.outcome.params,
            "latency": self.outcome.latency,
            "cached": self.cached,
            "images": self.outcome.images,
            "seconds": round(self.seconds, 4),
            "widths": {unit.name: len(unit.kept) for unit in self.plan.units if unit.protected is None},
            **(_groups_of(self.plan) if self.plan.grouped else {}),
        }


def _groups_of(plan: PruningPlan) -> dict[str, Any]:
    """A plan's groups as a record has them: how many, how many inputs each reads, and a digest of which."""
    if not plan.grouped:
        return {"groups": None, "reads": None, "inputs": None}
    listed = [(name, one.inputs, one.filters) for name, one in sorted(plan.grouped.items())]
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
    return {"groups": plan.groups, "reads": plan.reads, "inputs": digest}
