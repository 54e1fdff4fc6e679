"""Units: channels that must be cut together, and the places they occupy in the network's modules."""

from dataclasses import dataclass, field
from functools import cached_property

from prune_env.common.arrays import IntArray, Side
from prune_env.plan import PlannedMember


@dataclass(frozen=True, eq=False)
class Member:
    """One side of one module that a unit's channels run through.

    Attributes:
        module: Dotted name of the module.
        side: ``"out"`` where the module produces (or normalises) the channels, ``"in"`` where it reads them. Elsewhere
            the name of the module's own tensor that holds one number a channel (``"gamma"``), or of its attribute that
            holds a number of channels (``"splits.0"`` is the first of a list).
        index: int64 array [unit.channels, r]. Row i lists the module's channels that unit channel i occupies;
            r is 1 for a plain connection, H*W after a flatten, and the group count where a grouped convolution
            makes a unit channel one slot of every group.
    """

    module: str
    side: Side
    index: IntArray


@dataclass(frozen=True, eq=False)
class Unit:
    """Channels that are cut together; one decision of a search.

    Attributes:
        name: The dotted name of the unit's first layer; with ``#2``, ``#3`` for further units of the same layer.
        channels: The number of unit channels. Each is kept or cut as a whole.
        members: Every module side that the channels run through, producers first.
        protected: The reason why no action may touch the unit; None if the unit is free.
        inexact: Why a cut changes what stays; None if it does not. Such units are free only in an approximate walk.
        error: How much a cut of half of the channels changes the network's output, against the same channels set to
            zero: the relative root mean square; None where it was not measured.
    """

    name: str
    channels: int
    members: tuple[Member, ...] = field(repr=False)
    protected: str | None = None
    inexact: str | None = None
    error: float | None = None

    @cached_property
    def planned_members(self) -> tuple[PlannedMember, ...]:
        """The members as every plan records them."""
        return tuple(PlannedMember.from_index(member.module, member.side, member.index) for member in self.members)

    @property
    def layer(self) -> str:
        """The first convolution or linear layer that writes the channels, in calling order."""
        return self.members[0].module

    @property
    def free(self) -> bool:
        """Whether an action may cut the unit."""
        return self.protected is None
