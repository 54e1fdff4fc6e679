"""Which convolutions may fall into groups, how many, and what each group reads and computes.

AGSPRL (Wei et al., IEEE Access 2022) says that groups follow from what an agent decides, layer by layer; which step
decides which convolution, and how inputs and filters are shared out, is our choice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import log

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from prune_env.common.arrays import IntArray
from prune_env.common.layers import channels_of
from prune_env.granularity.group.edit import GroupEdit, why_not_groupable
from prune_env.granularity.group.gathered import choose_inputs, possible_groups
from prune_env.surgery.channels import takes_any_order
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Member, Unit

ROUNDS = 4
"""How often filters are assigned to groups and inputs chosen anew, in turn."""


@dataclass(frozen=True)
class Groupable:
    """A convolution that may fall into groups.

    Attributes:
        name: Its dotted name.
        counts: Group counts that are allowed; 1 is among them.
        reads: The units that it reads, and where.
        writes: The units that it writes, and where.
        reorders: Whether its filters may come in any order: all that has to do with its outputs can follow.
    """

    name: str
    counts: frozenset[int]
    reads: tuple[tuple[Unit, Member], ...] = field(repr=False)
    writes: tuple[tuple[Unit, Member], ...] = field(repr=False)
    reorders: bool


class Grouping:
    """The convolutions of a walk that may fall into groups, each decided with the last free unit that it touches.

    By then all its channels are known, so that its group counts are, too, and what it costs.

    Args:
        walk: The network's walk.
        most: The largest group count.
        untouched: Modules that stay as they are although a unit that they touch is free.
        counts: Group counts that are allowed, by convolution; all up to ``most`` where it is not named.

    Attributes:
        whole: Why each other convolution of the walk stays whole, by name.
    """

    def __init__(
        self,
        walk: LayerWalk,
        most: int,
        untouched: Collection[str] = (),
        counts: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        self.walk = walk
        self.most = most
        self.whole: dict[str, str] = {}
        number = {unit.name: place for place, unit in enumerate(walk.free)}
        by_step: list[list[Groupable]] = [[] for _ in number]
        for layer in walk.cost_model.layers:
            sides = {side: _touching(walk, layer.name, side) for side in ("in", "out")}
            free = [number[unit.name] for found in sides.values() for unit, _ in found if unit.free]
            reason = why_not_groupable(walk.model, layer.name)
            if not sides["in"]:
                reason = reason or "it reads no unit's channels"
            if layer.name in untouched:
                reason = reason or "it is protected"
            if not free:
                reason = reason or "all units that it touches are protected"
            if reason is not None:
                self.whole[layer.name] = reason
                continue
            allowed = frozenset((counts or {}).get(layer.name, range(1, most + 1))) | {1}
            found = Groupable(
                layer.name, allowed, tuple(sides["in"]), tuple(sides["out"]), _reorders(walk, layer.name, sides["out"])
            )
            by_step[max(free)].append(found)
        self.by_step = tuple(tuple(found) for found in by_step)

    @property
    def convolutions(self) -> tuple[Groupable, ...]:
        """All of them, in the order in which they are decided."""
        return tuple(found for step in self.by_step for found in step)

    def kept(self, convolution: Groupable, side: str, kept: Mapping[str, IntArray]) -> IntArray:
        """The convolution's channels on one side that stay, ascending, given those of each unit."""
        found = convolution.reads if side == "in" else convolution.writes
        stays = np.ones(channels_of(self.walk.model.get_submodule(convolution.name), side), dtype=np.bool_)
        for unit, member in found:
            if unit.name in kept:
                stays[member.index] = False
                stays[member.index[kept[unit.name]]] = True
        return np.flatnonzero(stays).astype(np.int64)


def _touching(walk: LayerWalk, name: str, side: str) -> list[tuple[Unit, Member]]:
    return [(unit, one) for unit in walk.units for one in unit.members if (one.module, one.side) == (name, side)]


def _reorders(walk: LayerWalk, name: str, writes: list[tuple[Unit, Member]]) -> bool:
    """Whether one unit is all that the convolution writes, it alone writes that, and every reader can follow."""
    if len(writes) != 1 or not writes[0][0].free:
        return False
    unit, written = writes[0]
    if not np.array_equal(written.index, np.arange(unit.channels)[:, None]):
        return False
    layers = {layer.name: layer for layer in walk.cost_model.layers}
    for member in unit.members:
        module = walk.model.get_submodule(member.module)
        if not takes_any_order(module) or len(_touching(walk, member.module, member.side)) > 1:
            return False
        if member.index.size != channels_of(module, member.side):
            return False
        writes_too = member.module in layers and not layers[member.module].depthwise and member.module != name
        if member.side == "out" and writes_too:
            return False
    return True


def nearest_count(inputs: int, outputs: int, wanted: float, allowed: Collection[int]) -> int:
    """Of the group counts that are allowed and divide both, the one nearest to what is wanted, as ratios go.

    Args:
        inputs: Input channels that stay.
        outputs: Output channels that stay.
        wanted: 1 or more.
        allowed: Counts; 1 is always allowed.
    """
    possible = [count for count in possible_groups(inputs, outputs) if count == 1 or count in allowed]
    return min(possible, key=lambda count: (abs(log(count / wanted)), count))


def share_out(
    scores: npt.NDArray[np.float64], count: int, reads: int, reorders: bool
) -> tuple[list[IntArray], list[IntArray]]:
    """Filters and inputs of each group, such that much of the scores stays.

    Inputs are each group's best. Where filters may be re-assigned they go to groups of equal size in which most of
    their scores stays, in turn with the inputs; no turn loses any.

    Args:
        scores: Of kernels, [filters, inputs].
        count: Groups; divides the filters.
        reads: Inputs that each group reads.
        reorders: Whether filters may be re-assigned.

    Returns:
        For each group its filters, and the inputs that it reads, both ascending.
    """
    size = len(scores) // count
    filters = [np.arange(number * size, (number + 1) * size) for number in range(count)]
    inputs = _inputs(scores, filters, reads)
    for _ in range(ROUNDS if reorders and count > 1 else 0):
        worth = np.stack([scores[:, read].sum(axis=1) for read in inputs], axis=1)
        _, seats = linear_sum_assignment(-np.repeat(worth, size, axis=1))
        again = [np.flatnonzero(seats // size == number) for number in range(count)]
        if all(np.array_equal(new, old) for new, old in zip(again, filters, strict=True)):
            break
        filters = again
        inputs = _inputs(scores, filters, reads)
    return filters, inputs


def _inputs(scores: npt.NDArray[np.float64], filters: list[IntArray], reads: int) -> list[IntArray]:
    return list(choose_inputs(np.stack([scores[own].sum(axis=0) for own in filters]), reads))


def planned(
    scores: npt.NDArray[np.float64], count: int, reads: int, reorders: bool, ins: IntArray, outs: IntArray
) -> GroupEdit:
    """The groups of a convolution as a plan has them.

    Args:
        scores: Of all its kernels, [output channels, input channels].
        count: Groups.
        reads: Inputs that each reads.
        reorders: Whether filters may be re-assigned.
        ins: Input channels that stay.
        outs: Output channels that stay.
    """
    filters, inputs = share_out(scores[np.ix_(outs, ins)], count, reads, reorders)
    return GroupEdit(inputs=[ins[read].tolist() for read in inputs], filters=[outs[own].tolist() for own in filters])
