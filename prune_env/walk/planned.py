"""The plan's record of a unit."""

from collections.abc import Sequence

from prune_env.plan import PlannedMember, PlannedUnit
from prune_env.walk.unit import Unit


def planned_unit(unit: Unit, kept: Sequence[int]) -> PlannedUnit:
    """The plan's record of a unit of which the given channels stay."""
    members = [PlannedMember.from_index(member.module, member.side, member.index) for member in unit.members]
    return PlannedUnit(
        name=unit.name, channels=unit.channels, kept=sorted(kept), protected=unit.protected, members=members
    )
