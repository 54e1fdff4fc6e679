"""Units: channels that must be cut together, and the places they occupy in the network's modules."""

from dataclasses import dataclass, field

from prune_env.common.arrays import IntArray, Side


@dataclass(frozen=True, eq=False)
class Member:
    """One side of one module that a unit's channels run through.

    Attributes:
        module: Dotted name of the module.
        side: ``"out"`` where the module produces (or normalises) the channels, ``"in"`` where it reads them.
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
        name: The dotted name of the unit's first convolution (or linear layer) in forward order.
        channels: The number of unit channels. Each is kept or cut as a whole.
        members: Every module side that the channels run through, producers first.
        protected: The reason why no action may touch the unit; None if the unit is free.
    """

    name: str
    channels: int
    members: tuple[Member, ...] = field(repr=False)
    protected: str | None = None

    @property
    def free(self) -> bool:
        """Whether an action may cut the unit."""
        return self.protected is None
