"""A plan's groups on a network: checked, put in order, and made of gathers and grouped convolutions."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.fingerprint import shorten
from prune_env.common.layers import channels_of, is_depthwise
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.plan import PlannedGroups, PlannedMember, PruningPlan

Grouped = Mapping[str, PlannedGroups]
Kept = Mapping[tuple[str, str], IntArray]


def why_not_groupable(model: nn.Module, name: str) -> str | None:
    """Why a module of a network cannot fall into groups; None where it can."""
    module = model.get_submodule(name)
    if type(module) is not nn.Conv2d:
        return f"it is a {type(module).__name__} and no nn.Conv2d"
    if module.groups > 1:
        return f"it has {module.groups} groups already"
    if sum(one is module for _, one in model.named_modules(remove_duplicate=False)) > 1:
        return "it has more than one name in the network"
    return None


def check_grouped(plan: PruningPlan, model: nn.Module, kept: Kept) -> None:
    """Refuses groups of a plan that do not fit what it keeps.

    Args:
        plan: The plan.
        model: The dense network.
        kept: For each (module, side) that is cut, the channels that stay.

    Raises:
        PlanError: Names the convolution, and says what is wrong.
    """
    modules = dict(model.named_modules())
    for name, planned in plan.grouped.items():
        place = shorten(repr(name))
        if name not in modules:
            raise PlanError(f"The plan groups {place}, which the network does not have. Make the plan anew.")
        module = modules[name]
        reason = why_not_groupable(model, name)
        if reason is not None:
            raise PlanError(f"The plan groups {place}, but {reason}. Leave it out of the plan's grouped.")
        filters = kept_side(module, kept, name, "out")
        if sorted(planned.order) != filters.tolist():
            raise PlanError(
                f"The plan's {len(planned.filters)} groups of {place} have {len(planned.order)} filters in all, which "
                f"are not the {len(filters)} output channels that it keeps; each of these must be in one group."
            )
        stays = kept_side(module, kept, name, "in")
        for number, inputs in enumerate(planned.inputs):
            outside = np.setdiff1d(inputs, stays)
            if len(outside):
                raise PlanError(
                    f"Group {number} of {place} reads input channel {outside[0]}, which is not one of the "
                    f"{len(stays)} that the plan keeps."
                )


def kept_side(module: nn.Module, kept: Kept, name: str, side: str) -> IntArray:
    """The channels of one side that stay, all of them where it is not cut."""
    whole: IntArray = np.arange(channels_of(module, side), dtype=np.int64)
    return kept.get((name, side), whole)


def put_in_order(plan: PruningPlan, model: nn.Module, kept: Kept) -> dict[tuple[str, str], IntArray]:
    """What stays, in the order in which groups compute it.

    Raises:
        PlanError: If something that reads the channels cannot take them in another order.
    """
    found = dict(kept)
    modules = dict(model.named_modules())
    for name, planned in plan.grouped.items():
        order = np.array(planned.order, dtype=np.int64)
        if np.array_equal(order, np.sort(order)):
            continue
        # The unit that the convolution writes, channel for channel.
        written = PlannedMember(module=name, side="out")
        unit = next((one for one in plan.units if written in one.members), None)
        alone = unit is not None and all(
            kept_side(modules[member.module], kept, member.module, member.side).size == order.size * member.repeat
            and member.index is None
            and follows(modules[member.module])
            for member in unit.members
        )
        others = [] if unit is None else [m.module for m in unit.members if m.side == "out" and m.module != name]
        if unit is None or unit.protected is not None or not alone or any(other in plan.grouped for other in others):
            raise PlanError(
                f"The filters of {shorten(repr(name))} are not in ascending order, which what reads its channels "
                "cannot follow. Make the plan anew."
            )
        for member in unit.members:
            index = member.channels(unit.channels)
            # Wherever a channel stood there is now the one that has taken its turn, also in a copy further on.
            instead: IntArray = np.zeros(int(index.max()) + 1, dtype=np.int64)
            instead[index[np.sort(order)]] = index[order]
            found[member.module, member.side] = instead[np.sort(index[order].ravel())]
    return found


def follows(module: nn.Module) -> bool:
    """Whether a module that has to do with a unit can take its channels in any order."""
    own_slots = getattr(module, "groups", 1) > 1 and not is_depthwise(module)
    return not hasattr(module, "keep_outputs") and not own_slots


def into_groups(small: nn.Module, dense: nn.Module, grouped: Grouped, kept: Kept) -> nn.Module:
    """Makes the planned convolutions of a cut network, whose other kernels are zero, grouped ones.

    Args:
        small: The cut network; changed in place.
        dense: The network that it was cut from.
        grouped: The groups.
        kept: For each (module, side) that is cut, the channels that stay, in order.

    Returns:
        The network: another one only where it is a single convolution.
    """
    for name, planned in grouped.items():
        convolution = small.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        made = GatheredConv2d.from_convolution(convolution, input_places(dense, name, planned, kept)).simplest()
        small = replaced(small, name, made)
    return small


def replaced(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The network with another module in a place, changed in place; the module where it is all of the network."""
    if not name:
        return module
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
    return network


def input_places(dense: nn.Module, name: str, planned: PlannedGroups, kept: Kept) -> list[IntArray]:
    """For each group of a convolution, the places of its inputs among those that stay, ascending."""
    places = places_of(kept_side(dense.get_submodule(name), kept, name, "in"))
    return [np.sort(places[inputs]) for inputs in planned.inputs]


def places_of(channels: IntArray) -> IntArray:
    """Where each channel is in a list of some, by its number; meaningless for those that are not in it."""
    places: IntArray = np.zeros(int(channels.max()) + 1, dtype=np.int64)
    places[channels] = np.arange(len(channels))
    return places
