"""Converts units to the records of a plan."""

from collections.abc import Sequence

from prune_env.plan import PlannedUnit
from prune_env.walk.unit import Unit


def planned_unit(unit: Unit, kept: Sequence[int]) -> PlannedUnit:
    """Returns the plan's record of a unit that keeps the given channels."""
    return PlannedUnit(
        name=unit.name,
        channels=unit.channels,
        kept=sorted(kept),
        protected=unit.protected,
        members=list(unit.planned_members),
    )
