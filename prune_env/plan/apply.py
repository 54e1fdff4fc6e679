"""A plan applied to a network: checked against it, cut, edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError, PlanMismatchError
from prune_env.common.fingerprint import fingerprint, first_difference, shorten
from prune_env.common.layers import channels_of
from prune_env.plan.edits import Edits
from prune_env.plan.records import PlannedMember
from prune_env.surgery.channels import (
    Kept,
    Repair,
    kept_channels,
    kept_side,
    replaced,
    slice_network,
    takes_any_order,
)

if TYPE_CHECKING:
    from prune_env.plan.document import PruningPlan


def apply_plan(plan: PruningPlan, model: nn.Module, repair: Repair | None = None) -> nn.Module:
    """A physically smaller copy of ``model``, repaired where a repair is given; see `PruningPlan.apply`."""
    kept = staying(plan, model)
    small = slice_network(model, kept, repair, plan.by_layer)
    return edited(small, model, plan.by_layer, kept)


def staying(plan: PruningPlan, model: nn.Module) -> dict[tuple[str, str], IntArray]:
    """For each (module, side) that a plan cuts or puts in another order: the channels that stay, in order.

    Raises:
        PlanMismatchError: If the plan was made for another network.
        PlanError: If it contradicts itself.
    """
    difference = first_difference(plan.fingerprint, fingerprint(model))
    if difference is not None:
        raise PlanMismatchError(
            f"The plan was made for another network. First module that differs: {difference}. "
            "Build the network that the plan was made for, or make a plan for this one."
        )
    _check_places(plan, model)
    kept = kept_channels(model, plan.removed_channels())
    _check_edits(plan, model, kept)
    return put_in_order(plan, model, kept)


def _check_places(plan: PruningPlan, model: nn.Module) -> None:
    """Refuses a plan whose units claim channels that the network does not have, or one channel twice."""
    modules = dict(model.named_modules())
    claimed: dict[tuple[str, str], IntArray] = {}
    for unit in plan.units:
        for member in unit.members:
            size = channels_of(modules[member.module], member.side) if member.module in modules else 0
            if not member.fits(unit.channels, size):
                raise PlanError(
                    f"Unit {shorten(repr(unit.name))} of the plan occupies channels of {shorten(repr(member.module))} "
                    f"({member.side}) outside its {size} channels. The file is damaged; make the plan anew."
                )
            if unit.protected is None:
                counts = claimed.setdefault((member.module, member.side), np.zeros(size, dtype=np.int64))
                np.add.at(counts, member.channels(unit.channels).ravel(), 1)
    for (name, side), counts in claimed.items():
        if counts.max() > 1:
            raise PlanError(
                f"The plan claims channel {counts.argmax()} of {name!r} ({side}) more than once. "
                "The file is damaged; make the plan anew."
            )


def _check_edits(plan: PruningPlan, model: nn.Module, kept: Kept) -> None:
    modules = dict(model.named_modules())
    for name, edit in plan.by_layer.items():
        if name not in modules:
            raise PlanError(
                f"The plan has an edit of kind {edit.kind!r} for {shorten(repr(name))}, a layer that the network does "
                "not have. Make the plan anew."
            )
        ins, outs = (kept_side(modules[name], kept, name, side) for side in ("in", "out"))
        edit.validate_on(model, name, ins, outs)


def put_in_order(plan: PruningPlan, model: nn.Module, kept: Kept) -> dict[tuple[str, str], IntArray]:
    """What stays, in the order in which edited layers compute it.

    Raises:
        PlanError: If something that reads the channels cannot take them in another order.
    """
    found = dict(kept)
    modules = dict(model.named_modules())
    for name, edit in plan.by_layer.items():
        order = edit.order()
        if order is None or np.array_equal(order, np.sort(order)):
            continue
        # The unit that the layer writes, channel for channel.
        written = PlannedMember(module=name, side="out")
        unit = next((one for one in plan.units if written in one.members), None)
        alone = unit is not None and all(
            kept_side(modules[member.module], kept, member.module, member.side).size == order.size * member.repeat
            and member.index is None
            and takes_any_order(modules[member.module])
            for member in unit.members
        )
        others = [] if unit is None else [m.module for m in unit.members if m.side == "out" and m.module != name]
        if unit is None or unit.protected is not None or not alone or any(other in plan.by_layer for other in others):
            raise PlanError(
                f"The filters of {shorten(repr(name))} are not in ascending order, which what reads its channels "
                "cannot follow. Make the plan anew."
            )
        for member in unit.members:
            index = member.channels(unit.channels)
            # Each place takes the channel whose turn it now is, also in a copy further on.
            instead: IntArray = np.zeros(int(index.max()) + 1, dtype=np.int64)
            instead[index[np.sort(order)]] = index[order]
            found[member.module, member.side] = instead[np.sort(index[order].ravel())]
    return found


def edited(small: nn.Module, dense: nn.Module, edits: Edits, kept: Kept) -> nn.Module:
    """Puts the edited layers of a cut network, whose tensors are masked, in their place.

    Args:
        small: The cut network; changed in place.
        dense: The network that it was cut from.
        edits: The edits.
        kept: For each (module, side) that is cut, the channels that stay, in order.

    Returns:
        The network: another one only where it is a single layer.
    """
    for name, edit in edits.items():
        ins, outs = (kept_side(dense.get_submodule(name), kept, name, side) for side in ("in", "out"))
        small = replaced(small, name, edit.module(small.get_submodule(name), ins, outs))
    return small
