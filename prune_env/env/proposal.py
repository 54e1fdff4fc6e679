"""Proposals: what a search wants to try, small enough to send to another process."""

from dataclasses import dataclass, replace
from typing import Any

from prune_env.common.arrays import IntArray
from prune_env.granularity.base import Numbers
from prune_env.plan import PruningPlan


@dataclass(frozen=True, eq=False)
class Proposal:
    """One plan that a search proposes, as widths, as decisions, or as a finished plan.

    Attributes:
        widths: Widths, int64 [free units]: each unit keeps its best-scored channels.
        numbers: Decisions for the granularity's builder, float64 [free units, action dimensions].
        action: The meaning of actions that ``numbers`` were decoded with, as in ``granularity.action``; None for the
            problem's own.
        plan: The plan. A search that has made the plan gives it, so that it is not made again.
        note: What the search wants to have when the outcome is told; it is neither read nor sent.
        steps: Steps for which the plan's network is trained before it is measured (`ShortTraining`); 0 for none.
    """

    widths: IntArray | None = None
    numbers: Numbers | None = None
    action: str | None = None
    plan: PruningPlan | None = None
    note: Any = None
    steps: int = 0

    def __post_init__(self) -> None:
        if self.widths is None and self.numbers is None and self.plan is None:
            raise TypeError("A Proposal needs widths, numbers or a plan; none was given.")

    def to_send(self) -> "Proposal":
        """The same proposal without its note, and without the plan where widths or numbers say it in fewer bytes."""
        short = self.widths is not None or self.numbers is not None
        return replace(self, note=None, plan=None if short else self.plan)
