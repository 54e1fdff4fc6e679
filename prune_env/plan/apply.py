"""Applies a plan to a network: checks that it fits, cuts channels, edits layers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError, PlanMismatchError
from prune_env.common.fingerprint import fingerprint, first_difference
from prune_env.common.layers import channels_of, is_layer, unwrapped
from prune_env.common.text import shorten
from prune_env.plan.edits import Edits
from prune_env.plan.records import PlannedMember, PlannedUnit
from prune_env.surgery.channels import (
    Kept,
    Repair,
    kept_channels,
    kept_side,
    replaced,
    slice_network,
    takes_any_order,
)


class AppliedPlan(Protocol):
    """The parts of a `PruningPlan` that its application reads."""

    @property
    def units(self) -> Sequence[PlannedUnit]:
        """The units with their kept channels."""

    @property
    def by_layer(self) -> Edits:
        """The edits, by layer."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """The network that the plan was made for."""

    def removed_channels(self) -> Mapping[tuple[str, str], IntArray]:
        """The channels that are cut, for each (module, side)."""


def apply_plan(plan: AppliedPlan, model: nn.Module, repair: Repair | None = None) -> nn.Module:
    """Returns a physically smaller copy of ``model``; ``repair`` replaces sliced weights. See `PruningPlan.apply`."""
    model = unwrapped(model)
    kept = staying(plan, model)
    small = slice_network(model, kept, repair, plan.by_layer)
    return edited(small, model, plan.by_layer, kept)


def staying(plan: AppliedPlan, model: nn.Module) -> dict[tuple[str, str], IntArray]:
    """Returns the channels that stay, in order, for each (module, side) that a plan cuts or reorders.

    Raises:
        PlanMismatchError: If the plan was made for another network.
        PlanError: If the plan contradicts itself or names channels or layers that the network does not have.
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


def _check_places(plan: AppliedPlan, model: nn.Module) -> None:
    """Refuses a plan whose units claim channels that the network does not have or claim twice, or have but one side."""
    modules = dict(model.named_modules())
    claimed: dict[tuple[str, str], IntArray] = {}
    for unit in plan.units:
        for member in unit.members:
            size = channels_of(modules[member.module], member.side) if member.module in modules else 0
            if not member.fits(unit.channels, size):
                raise PlanError(
                    f"Unit {shorten(repr(unit.name))} of the plan occupies channels of {shorten(repr(member.module))} "
                    f"({member.side}) outside its {size} channels. The file is damaged; make a new plan."
                )
            counts = claimed.setdefault((member.module, member.side), np.zeros(size, dtype=np.int64))
            np.add.at(counts, member.channels(unit.channels).ravel(), 1)
        if len(unit.kept) < unit.channels:
            _check_both_sides(unit, modules)
    for (name, side), counts in claimed.items():
        if counts.max() > 1:
            raise PlanError(
                f"The plan claims channel {counts.argmax()} of {name!r} ({side}) more than once. "
                "The file is damaged; make a new plan."
            )


def _check_both_sides(unit: PlannedUnit, modules: Mapping[str, nn.Module]) -> None:
    """Refuses a cut unit that no layer writes or no layer reads: its other side would keep all channels."""
    writes = any(member.side == "out" and is_layer(modules[member.module]) for member in unit.members)
    reads = any(member.side == "in" for member in unit.members)
    if not (writes and reads):
        raise PlanError(
            f"Unit {shorten(repr(unit.name))} of the plan is cut, but no layer among its members "
            f"{'reads' if writes else 'writes'} its channels. The file is damaged; make a new plan."
        )


def _check_edits(plan: AppliedPlan, model: nn.Module, kept: Kept) -> None:
    modules = dict(model.named_modules())
    for name, edit in plan.by_layer.items():
        if name not in modules:
            raise PlanError(
                f"The plan has an edit of kind {edit.kind!r} for {shorten(repr(name))}, a layer that the network does "
                "not have. Make a new plan."
            )
        ins, outs = (kept_side(modules[name], kept, name, side) for side in ("in", "out"))
        edit.validate_on(model, name, ins, outs)


def put_in_order(plan: AppliedPlan, model: nn.Module, kept: Kept) -> dict[tuple[str, str], IntArray]:
    """Returns the channels that stay, in the order in which edited layers compute them.

    Raises:
        PlanError: If a module of the unit cannot take the channels in another order.
    """
    ordered = dict(kept)
    modules = dict(model.named_modules())
    for name, edit in plan.by_layer.items():
        order = edit.order()
        if order is None or np.array_equal(order, np.sort(order)):
            continue
        # The defaults map unit channel i to the layer's output channel i.
        output = PlannedMember(module=name, side="out")
        unit = next((candidate for candidate in plan.units if output in candidate.members), None)
        reorderable = unit is not None and all(
            kept_side(modules[member.module], kept, member.module, member.side).size == order.size * member.repeat
            and member.index is None
            and takes_any_order(modules[member.module])
            for member in unit.members
        )
        others = [] if unit is None else [m.module for m in unit.members if m.side == "out" and m.module != name]
        edited_too = any(other in plan.by_layer for other in others)
        if unit is None or unit.protected is not None or not reorderable or edited_too:
            raise PlanError(
                f"The filters of {shorten(repr(name))} are not in ascending order, and modules that share its channels "
                "cannot follow that order. Make a new plan."
            )
        for member in unit.members:
            index = member.channels(unit.channels)
            # Reorder each repeat of the unit's channels within its own places, for example both halves of cat(x, x).
            replacement: IntArray = np.zeros(int(index.max()) + 1, dtype=np.int64)
            replacement[index[np.sort(order)]] = index[order]
            ordered[member.module, member.side] = replacement[np.sort(index[order].ravel())]
    return ordered


def edited(small: nn.Module, dense: nn.Module, edits: Edits, kept: Kept) -> nn.Module:
    """Replaces the masked layers of a cut network by the smaller modules of their edits.

    Args:
        small: The cut network; changed in place.
        dense: The dense network that ``small`` was cut from.
        edits: The edits, by layer.
        kept: The channels that stay, in order, for each (module, side) that is cut.

    Returns:
        ``small``, or the edited module if the network is that single layer.
    """
    for name, edit in edits.items():
        ins, outs = (kept_side(dense.get_submodule(name), kept, name, side) for side in ("in", "out"))
        small = replaced(small, name, edit.module(small.get_submodule(name), ins, outs))
    return small
