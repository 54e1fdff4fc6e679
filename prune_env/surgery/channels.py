"""Channels cut out of a network: tensors sliced while the module tree is copied, nothing else touched."""

import copy
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError, PlanMismatchError
from prune_env.common.fingerprint import fingerprint, first_difference, shorten
from prune_env.common.layers import Convolution, channels_of, is_depthwise
from prune_env.granularity.group.planned_groups import Grouped, check_grouped, into_groups, places_of, put_in_order
from prune_env.plan import PlannedGroups, PruningPlan
from prune_env.surgery.repair import Repair, Sides

Kept = Mapping[tuple[str, str], IntArray]
"""For each (module, side), some of that module's channels."""

NO_GROUPS: Grouped = MappingProxyType({})


def apply_plan(plan: PruningPlan, model: nn.Module, repair: Repair | None = None) -> nn.Module:
    """A physically smaller copy of ``model``, repaired where a repair is given; see `PruningPlan.apply`."""
    kept = staying(plan, model)
    small = slice_network(model, kept, repair, plan.grouped)
    return into_groups(small, model, plan.grouped, kept)


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
    check_grouped(plan, model, kept)
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


def kept_channels(model: nn.Module, removed: Kept) -> dict[tuple[str, str], IntArray]:
    """For each (module, side) that loses channels: those that stay, ascending.

    Raises:
        PlanError: If a channel is cut twice, does not exist, or none is left.
    """
    modules = dict(model.named_modules())
    kept = {}
    for (name, side), gone in removed.items():
        total = channels_of(modules[name], side) if name in modules else 0
        if gone.min() < 0 or gone.max() >= total or len(np.unique(gone)) != len(gone):
            raise PlanError(
                f"The plan cuts a channel of {name!r} ({side}) twice, or one outside its {total} channels. "
                "The file is damaged; make the plan anew."
            )
        if len(gone) == total:
            raise PlanError(f"The plan cuts all {total} channels of {name!r} ({side}); at least one must stay.")
        kept[name, side] = np.setdiff1d(np.arange(total), gone)
        groups = getattr(modules[name], "groups", 1)
        if groups > 1 and not is_depthwise(modules[name]):
            left = np.bincount(kept[name, side] // (total // groups), minlength=groups)
            if left.min() != left.max():
                raise PlanError(
                    f"The plan cuts the {groups} groups of {name!r} ({side}) unequally. "
                    "The file is damaged; make the plan anew."
                )
    return kept


def slice_network(
    model: nn.Module, kept: Kept, repair: Repair | None = None, grouped: Grouped = NO_GROUPS
) -> nn.Module:
    """A copy of ``model`` in which every module listed in ``kept`` has only its kept channels.

    The tree is copied with the sliced tensors already in place of the dense ones, so nothing is copied to be
    thrown away.

    Args:
        model: The dense network; it is left untouched.
        kept: The channels that stay.
        repair: What gives the layers that read cut channels other weights; None leaves them sliced.
        grouped: Groups of convolutions; their kernels for inputs that a group does not read are zero.

    Returns:
        The smaller network, in the same training mode, on the same device.
    """
    cuts: dict[str, dict[str, IntArray]] = {}
    for (name, side), channels in kept.items():
        cuts.setdefault(name, {})[side] = channels
    for name in grouped:
        cuts.setdefault(name, {})
    modules = dict(model.named_modules())
    sliced: dict[int, Tensor] = {}
    for name, sides in cuts.items():
        own = {**modules[name]._parameters, **modules[name]._buffers}
        for key, values in cut_tensors(name, modules[name], sides, repair, grouped.get(name)).items():
            sliced[id(own[key])] = _like(own[key], values)
    small = copy.deepcopy(model, dict(sliced))
    modules = dict(small.named_modules())
    for name, sides in cuts.items():
        set_sizes(modules[name], sides)
    return small


def cut_tensors(
    name: str, module: nn.Module, sides: Sides, repair: Repair | None, planned: PlannedGroups | None = None
) -> dict[str, Tensor]:
    """The module's own tensors that a cut changes, sliced and repaired, by name."""
    if planned is not None:
        return _cut_by_group(name, module, sides, repair, planned)
    sliced = sliced_tensors(module, sides)
    if repair is None:
        return sliced
    own = {**module._parameters, **module._buffers}
    # A repair may compute elsewhere, and in another type.
    return {**sliced, **{key: values.to(own[key]) for key, values in repair.tensors(name, sides).items()}}


def _cut_by_group(
    name: str, module: nn.Module, sides: Sides, repair: Repair | None, planned: PlannedGroups
) -> dict[str, Tensor]:
    """As `cut_tensors`: each group is a cut of its own, and what it does not read is zero."""
    whole = {side: sides.get(side, np.arange(channels_of(module, side))) for side in ("out", "in")}
    found = sliced_tensors(module, whole)
    found["weight"].zero_()
    rows, columns = places_of(whole["out"]), places_of(whole["in"])
    for filters, inputs in zip(planned.filters, planned.inputs, strict=True):
        own = {"out": np.array(filters, dtype=np.int64), "in": np.array(inputs, dtype=np.int64)}
        part = cut_tensors(name, module, own, repair)
        there = torch.as_tensor(rows[own["out"]], device=found["weight"].device)
        read = torch.as_tensor(columns[own["in"]], device=found["weight"].device)
        found["weight"][there[:, None], read] = part["weight"]
        if "bias" in found:
            found["bias"][there] = part["bias"]
    return found


def sliced_tensors(module: nn.Module, sides: Sides) -> dict[str, Tensor]:
    """The module's own tensors that a cut changes, sliced, by name.

    Args:
        module: The dense module.
        sides: The channels that stay, for each side that is cut.
    """
    rows = _as_index(sides.get("out"), module)
    if isinstance(module, (*Convolution, nn.Linear)):
        weight = module.weight.detach()
        if rows is not None:
            weight = weight.index_select(0, rows)
        if "in" in sides and not is_depthwise(module):
            weight = _slice_inputs(module, weight, sides)
        if module.bias is None or rows is None:
            return {"weight": weight}
        return {"weight": weight, "bias": module.bias.detach().index_select(0, rows)}
    if rows is None or hasattr(module, "keep_outputs"):
        return {}
    channels = channels_of(module, "out")
    own = {**module._parameters, **module._buffers}
    return {
        key: tensor.detach().index_select(0, rows)
        for key, tensor in own.items()
        if tensor is not None and tensor.ndim == 1 and len(tensor) == channels
    }


def _slice_inputs(module: nn.Module, weight: Tensor, sides: Sides) -> Tensor:
    """The weight's input dimension cut; in a grouped convolution each group keeps its own slots."""
    groups = 1 if isinstance(module, nn.Linear) else int(module.groups)  # type: ignore[arg-type]
    if groups == 1:
        return weight.index_select(1, torch.as_tensor(sides["in"], device=weight.device))
    slots = channels_of(module, "in") // groups
    by_group = sides["in"].reshape(groups, -1) - np.arange(groups)[:, None] * slots
    blocks = weight.chunk(groups, dim=0)
    device = weight.device
    return torch.cat(
        [
            block.index_select(1, torch.as_tensor(own, device=device))
            for block, own in zip(blocks, by_group, strict=True)
        ]
    )


def set_sizes(module: nn.Module, sides: Sides) -> None:
    """Makes the copied module's own numbers agree with its sliced tensors."""
    if hasattr(module, "keep_outputs"):
        if "in" in sides:
            module.keep_inputs(sides["in"])  # type: ignore[operator]
        if "out" in sides:
            module.keep_outputs(sides["out"])  # type: ignore[operator]
        return
    depthwise = is_depthwise(module)
    for side, channels in sides.items():
        for attribute in _SIZES[side]:
            if hasattr(module, attribute):
                setattr(module, attribute, len(channels))
    if depthwise:
        module.groups = module.in_channels = module.out_channels


_SIZES = {
    "in": ("in_channels", "in_features"),
    "out": ("out_channels", "out_features", "num_features", "num_parameters"),
}


def _as_index(channels: IntArray | None, module: nn.Module) -> Tensor | None:
    if channels is None:
        return None
    tensor = next(iter((*module.parameters(recurse=False), *module.buffers(recurse=False))), None)
    return torch.as_tensor(channels, device=None if tensor is None else tensor.device)


def _like(dense: Tensor | None, values: Tensor) -> Tensor:
    if isinstance(dense, nn.Parameter):
        return nn.Parameter(values, requires_grad=dense.requires_grad)
    return values
