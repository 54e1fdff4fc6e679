"""The convolutions that may be grouped, their group counts, and the inputs and filters of each group.

In AGSPRL (Wei et al., IEEE Access 2022) groups follow from an agent's decisions, layer by layer. The step that decides
each convolution, and the assignment of inputs and filters to groups, are our choice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import log

import numpy as np
import numpy.typing as npt

from prune_env.common.arrays import IntArray
from prune_env.common.layers import channels_of
from prune_env.granularity.group.edit import GroupEdit, why_not_groupable
from prune_env.granularity.group.gathered import choose_inputs, possible_groups
from prune_env.surgery.channels import takes_any_order
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Member, Unit

ROUNDS = 4
"""Maximum rounds of assigning filters to groups and choosing inputs anew."""


@dataclass(frozen=True)
class Groupable:
    """A convolution that may be grouped.

    Attributes:
        name: The convolution's dotted name.
        counts: Allowed group counts; 1 is always allowed.
        reads: The units whose channels the convolution reads, each with its member for the convolution's inputs.
        writes: The units whose channels the convolution writes, each with its member for the convolution's outputs.
        reorders: Whether the filters may be reordered, because every member of the written unit can take any order.
    """

    name: str
    counts: frozenset[int]
    reads: tuple[tuple[Unit, Member], ...] = field(repr=False)
    writes: tuple[tuple[Unit, Member], ...] = field(repr=False)
    reorders: bool


class Grouping:
    """The convolutions of a walk that may be grouped, each decided with the last free unit that it touches.

    At that step all channels of the convolution are decided, so its possible group counts and its cost are known.

    Args:
        walk: The network's walk.
        most: The largest group count.
        untouched: Modules that stay whole, even where they touch a free unit.
        counts: Allowed group counts, by convolution; a convolution that is not named may have all up to ``most``.

    Attributes:
        by_step: For each free unit the convolutions that are decided with it.
        whole: For each other layer of the walk the reason why it stays whole, by name.
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
            free = [number[unit.name] for touched in sides.values() for unit, _ in touched if unit.free]
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
            reorders = _reorders(walk, layer.name, sides["out"])
            convolution = Groupable(layer.name, allowed, tuple(sides["in"]), tuple(sides["out"]), reorders)
            by_step[max(free)].append(convolution)
        self.by_step = tuple(map(tuple, by_step))

    @property
    def convolutions(self) -> tuple[Groupable, ...]:
        """All convolutions that may be grouped, in the order of decision."""
        return tuple(convolution for step in self.by_step for convolution in step)

    def kept(self, convolution: Groupable, side: str, kept: Mapping[str, IntArray]) -> IntArray:
        """The convolution's channels on one side that stay, ascending, given the kept channels of each unit."""
        touched = convolution.reads if side == "in" else convolution.writes
        stays = np.ones(channels_of(self.walk.model.get_submodule(convolution.name), side), dtype=np.bool_)
        for unit, member in touched:
            if unit.name in kept:
                stays[member.index] = False
                stays[member.index[kept[unit.name]]] = True
        return np.flatnonzero(stays).astype(np.int64)


def _touching(walk: LayerWalk, name: str, side: str) -> list[tuple[Unit, Member]]:
    """The units that run through one side of a module, each with its member there."""
    return [
        (unit, member) for unit in walk.units for member in unit.members if (member.module, member.side) == (name, side)
    ]


def _reorders(walk: LayerWalk, name: str, writes: list[tuple[Unit, Member]]) -> bool:
    """Whether the convolution writes exactly one free unit, is its only writer, and every member can take any order."""
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
    """The allowed group count that divides inputs and outputs and is nearest to the wanted count, by ratio.

    Args:
        inputs: Input channels that stay.
        outputs: Output channels that stay.
        wanted: Wanted group count, 1 or more.
        allowed: Allowed group counts; 1 is always allowed.
    """
    possible = [count for count in possible_groups(inputs, outputs) if count == 1 or count in allowed]
    return min(possible, key=lambda count: (abs(log(count / wanted)), count))


def share_out(
    scores: npt.NDArray[np.float64], count: int, reads: int, reorders: bool
) -> tuple[list[IntArray], list[IntArray]]:
    """Chooses the filters and inputs of each group so that the kernels that stay have a high total score.

    Each group reads the inputs with its highest scores. If filters may be reassigned, filter assignment to groups of
    equal size (the optimal one for the current inputs) and input choice alternate; no round lowers the total score.

    Args:
        scores: Kernel scores, [filters, inputs].
        count: Group count; must divide the number of filters.
        reads: Inputs that each group reads.
        reorders: Whether filters may be reassigned.

    Returns:
        For each group its filters, and for each group its inputs, all ascending.
    """
    from scipy.optimize import linear_sum_assignment  # here, because the import takes time

    size = len(scores) // count
    filters = [np.arange(number * size, (number + 1) * size) for number in range(count)]
    inputs = _inputs(scores, filters, reads)
    for _ in range(ROUNDS if reorders and count > 1 else 0):
        worth = np.stack([scores[:, read].sum(axis=1) for read in inputs], axis=1)
        _, slots = linear_sum_assignment(-np.repeat(worth, size, axis=1))
        reassigned = [np.flatnonzero(slots // size == number) for number in range(count)]
        if all(np.array_equal(new, old) for new, old in zip(reassigned, filters, strict=True)):
            break
        filters = reassigned
        inputs = _inputs(scores, filters, reads)
    return filters, inputs


def _inputs(scores: npt.NDArray[np.float64], filters: list[IntArray], reads: int) -> list[IntArray]:
    return list(choose_inputs(np.stack([scores[own].sum(axis=0) for own in filters]), reads))


def planned(
    scores: npt.NDArray[np.float64], count: int, reads: int, reorders: bool, ins: IntArray, outs: IntArray
) -> GroupEdit:
    """The group edit of a convolution.

    Args:
        scores: Scores of all kernels, [output channels, input channels].
        count: Group count.
        reads: Inputs that each group reads.
        reorders: Whether filters may be reassigned.
        ins: Input channels that stay.
        outs: Output channels that stay.
    """
    filters, inputs = share_out(scores[np.ix_(outs, ins)], count, reads, reorders)
    return GroupEdit(inputs=[ins[read].tolist() for read in inputs], filters=[outs[own].tolist() for own in filters])
