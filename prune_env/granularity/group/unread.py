"""Channels that no group reads, and plans without these channels."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.layers import is_depthwise
from prune_env.granularity.group.edit import Groups, groups_of, with_groups
from prune_env.plan import PlannedUnit, PruningPlan
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Member


def channels_read(model: nn.Module, members: Sequence[Member], grouped: Groups) -> IntArray | None:
    """The channels of a unit that groups read, ascending; None unless it has readers and all are grouped.

    Args:
        model: The dense network.
        members: The unit's members.
        grouped: The groups, by convolution.
    """
    # A depthwise convolution only passes channels on to the readers.
    readers = [
        member for member in members if member.side == "in" and not is_depthwise(model.get_submodule(member.module))
    ]
    if not readers or any(reader.module not in grouped for reader in readers):
        return None
    read = []
    for member in readers:
        inputs = np.concatenate([np.array(own) for own in grouped[member.module].inputs])
        read.append(np.flatnonzero(np.isin(member.index, inputs).any(axis=1)))
    return np.unique(np.concatenate(read))


def without_unread(plan: PruningPlan, walk: LayerWalk, multiple: int = 1) -> PruningPlan:
    """The plan without the channels that no group reads.

    The new plan's network gives the same outputs. A grouped convolution keeps its groups: each group loses as many
    filters as the group with the fewest unread filters can lose. A unit that several grouped convolutions write is not
    cut [our choice], nor is a unit that the plan or the walk protects.

    Args:
        plan: The plan.
        walk: The walk of the dense network.
        multiple: Widths are cut to multiples of this.
    """
    grouped = groups_of(plan)
    free = {unit.name for unit in walk.free}
    units = []
    for unit in plan.units:
        gone = _to_cut(unit, plan, walk.model, multiple) if unit.name in free else np.arange(0)
        units.append(unit.model_copy(update={"kept": np.setdiff1d(unit.kept, gone).tolist()}))
        for member in unit.members if len(gone) else []:
            if member.side == "out" and member.module in grouped:
                planned = grouped[member.module]
                left = [np.setdiff1d(own, member.channels(unit.channels)[gone]).tolist() for own in planned.filters]
                grouped[member.module] = planned.model_copy(update={"filters": left})
    narrow = with_groups(plan.model_copy(update={"units": units}), grouped)
    return narrow.costing(walk.costs(narrow.widths, narrow.by_layer))


def _to_cut(unit: PlannedUnit, plan: PruningPlan, model: nn.Module, multiple: int) -> IntArray:
    nothing: IntArray = np.arange(0)
    members = [Member(member.module, member.side, member.channels(unit.channels)) for member in unit.members]
    read = channels_read(model, members, groups_of(plan))
    if unit.protected is not None or read is None:
        return nothing
    writers = [member for member in members if member.side == "out" and member.module in groups_of(plan)]
    parts = [np.array(unit.kept)]
    if writers:
        filters = groups_of(plan)[writers[0].module].filters
        alone = len(writers) == 1 and np.array_equal(writers[0].index.ravel(), np.arange(unit.channels))
        if not alone or sum(map(len, filters)) != len(unit.kept):
            return nothing
        parts = [np.array(own) for own in filters]
    spare = [np.setdiff1d(part, read) for part in parts]
    each = min(min(len(own) for own in spare), len(parts[0]) - 1)
    while (len(unit.kept) - each * len(parts)) % multiple and each > 0:
        each -= 1
    return np.concatenate([own[:each] for own in spare])
