"""Cuts channels out of a network: copies the module tree with sliced tensors and leaves the dense network untouched."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.copying import copied
from prune_env.common.errors import PlanError
from prune_env.common.layers import (
    Convolution,
    Transposed,
    channels_of,
    cuts_itself,
    held_at,
    is_depthwise,
    is_layer,
    is_standard,
    tensor_axis,
)

Sides = Mapping[str, IntArray]
"""The channels of one module that stay, by cut side."""

Kept = Mapping[tuple[str, str], IntArray]
"""Channels of modules, by (module, side)."""


class Repair(Protocol):
    """Replaces the sliced weights of layers of a cut network."""

    def tensors(self, name: str, sides: Sides) -> Mapping[str, Tensor]:
        """Returns the tensors that replace a cut layer's sliced tensors, by name.

        Args:
            name: The layer's dotted name.
            sides: The channels that stay, by cut side.
        """
        ...


class Mask(Protocol):
    """Removes more than whole channels from a layer, by setting weights to zero."""

    def masked(
        self, module: nn.Module, sides: Sides, cut: Callable[[Sides], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Returns the layer's masked tensors, in the cut layer's shape.

        Args:
            module: The dense layer.
            sides: The channels that stay, in order, by cut side.
            cut: Returns the layer's sliced and repaired tensors for the sides that it is given.
        """
        ...


Masks = Mapping[str, Mask]
"""Masks by layer."""

NO_MASKS: Masks = MappingProxyType({})


def kept_channels(model: nn.Module, removed: Kept) -> dict[tuple[str, str], IntArray]:
    """Returns the channels that stay, ascending, for each (module, side) that loses channels.

    Raises:
        PlanError: If a channel is cut twice or does not exist, if no channel is left, or if groups are cut unequally.
    """
    modules = dict(model.named_modules())
    kept = {}
    for (name, side), gone in removed.items():
        total = channels_of(modules[name], side) if name in modules else 0
        stays = np.ones(total, dtype=np.bool_)
        inside = gone.min() >= 0 and gone.max() < total
        if inside:
            stays[gone] = False
        if not inside or stays.sum() != total - len(gone):
            raise PlanError(
                f"The plan cuts a channel of {name!r} ({side}) twice, or a channel outside its {total} channels. "
                "Make a new plan."
            )
        if len(gone) == total:
            raise PlanError(f"The plan cuts all {total} channels of {name!r} ({side}); at least one must stay.")
        kept[name, side] = np.flatnonzero(stays)
        groups = modules[name].groups if isinstance(modules[name], (*Convolution, *Transposed)) else 1
        if groups > 1 and not is_depthwise(modules[name]):
            left = np.bincount(kept[name, side] // (total // groups), minlength=groups)
            if left.min() != left.max():
                raise PlanError(f"The plan cuts the {groups} groups of {name!r} ({side}) unequally. Make a new plan.")
    for name in {name for name, _ in kept}:
        _check_depthwise(modules[name], kept, name)
    return kept


def _check_depthwise(module: nn.Module, kept: Kept, name: str) -> None:
    """Refuses to cut the inputs of a depthwise convolution otherwise than its outputs."""
    if not is_depthwise(module):
        return
    ins, outs = (kept_side(module, kept, name, side) for side in ("in", "out"))
    multiplier = channels_of(module, "out") // channels_of(module, "in")
    if not np.array_equal(outs, (ins[:, None] * multiplier + np.arange(multiplier)).ravel()):
        raise PlanError(
            f"The plan keeps {len(ins)} inputs and {len(outs)} outputs of {name!r}, which is depthwise: its inputs and "
            "outputs go together. Make a new plan."
        )


def slice_network(model: nn.Module, kept: Kept, repair: Repair | None = None, masks: Masks = NO_MASKS) -> nn.Module:
    """Returns a copy of ``model`` in which every module listed in ``kept`` has only its kept channels.

    The copy takes the sliced tensors in place of the dense tensors, so that the dense tensors are never copied.

    Args:
        model: The dense network; it is left untouched.
        kept: The channels that stay.
        repair: Replaces the sliced weights of cut layers; None keeps the sliced weights.
        masks: The masks of layers that lose more than whole channels, by layer.

    Returns:
        The smaller network, in the same training mode, on the same device.
    """
    cuts: dict[str, dict[str, IntArray]] = {}
    for (name, side), channels in kept.items():
        cuts.setdefault(name, {})[side] = channels
    for name in masks:
        cuts.setdefault(name, {})
    modules = dict(model.named_modules())
    sliced: dict[int, Tensor] = {}
    for name, sides in cuts.items():
        own = {**modules[name]._parameters, **modules[name]._buffers}
        for key, values in cut_tensors(name, modules[name], sides, repair, masks.get(name)).items():
            sliced[id(own[key])] = _like(own[key], values)
    small = copied(model, sliced)
    modules = dict(small.named_modules())
    for name, sides in cuts.items():
        set_sizes(modules[name], sides)
    return small


def cut_tensors(
    name: str, module: nn.Module, sides: Sides, repair: Repair | None, mask: Mask | None = None
) -> dict[str, Tensor]:
    """Slices, repairs and masks the module's own tensors that a cut changes; returns them by name."""
    if mask is not None:
        return mask.masked(module, sides, partial(cut_tensors, name, module, repair=repair))
    sliced = sliced_tensors(module, sides)
    if repair is None:
        return sliced
    own = {**module._parameters, **module._buffers}
    # A repair may return tensors on another device and of another dtype.
    return {**sliced, **{key: values.to(own[key]) for key, values in repair.tensors(name, sides).items()}}


def sliced_tensors(module: nn.Module, sides: Sides) -> dict[str, Tensor]:
    """Slices the module's own tensors that a cut changes; returns them by name.

    Args:
        module: The dense module.
        sides: The channels that stay, by cut side.
    """
    if cuts_itself(module):
        return {}
    sliced = {side: _on_axis_of_channels(module, side, sides[side]) for side in sides if _is_tensor(module, side)}
    rows = _as_index(sides.get("out"), module)
    if is_layer(module):
        sliced["weight"] = _layer_weight(module, sides)
        if module.bias is not None and rows is not None:
            sliced["bias"] = module.bias.detach().index_select(0, rows)  # type: ignore[operator]
        return sliced
    if rows is None:
        return sliced
    channels = channels_of(module, "out")
    own = {**module._parameters, **module._buffers}
    return sliced | {
        key: tensor.detach().index_select(0, rows)
        for key, tensor in own.items()
        if tensor is not None and tensor.ndim == 1 and len(tensor) == channels
    }


def _is_tensor(module: nn.Module, side: str) -> bool:
    return side not in ("in", "out") and isinstance(held_at(module, side), Tensor)


def _on_axis_of_channels(module: nn.Module, side: str, kept: IntArray) -> Tensor:
    tensor = held_at(module, side)
    assert isinstance(tensor, Tensor)
    axis = tensor_axis(tensor)
    return tensor.detach().index_select(axis or 0, torch.as_tensor(kept, device=tensor.device))


def _layer_weight(module: nn.Module, sides: Sides) -> Tensor:
    """Slices a layer's weight; in a grouped convolution each group keeps its own slots."""
    weight: Tensor = module.weight.detach()  # type: ignore[operator]
    transposed = isinstance(module, Transposed)
    groups = int(getattr(module, "groups", 1))
    if is_depthwise(module):
        if transposed:
            return _depthwise_transposed(weight, module, sides)
        return weight if "out" not in sides else weight.index_select(0, _indices(sides["out"], weight))
    # Seen by group: [groups, the axis that has all channels, the axis that has one group's channels, ...].
    whole, part = ("in", "out") if transposed else ("out", "in")
    if whole in sides:
        weight = weight.index_select(0, _indices(sides[whole], weight))
    if groups == 1:
        return weight.index_select(1, _indices(sides[part], weight)) if part in sides else weight
    blocks = weight.reshape(groups, -1, *weight.shape[1:])
    if part in sides:
        slots = channels_of(module, part) // groups
        by_group = sides[part].reshape(groups, -1) - np.arange(groups)[:, None] * slots
        blocks = torch.stack(
            [block.index_select(1, _indices(own, weight)) for block, own in zip(blocks, by_group, strict=True)]
        )
    return blocks.flatten(0, 1)


def _depthwise_transposed(weight: Tensor, module: nn.Module, sides: Sides) -> Tensor:
    """Slices the weight [in, multiplier, ...] of a depthwise transposed convolution: inputs go with their outputs."""
    multiplier = channels_of(module, "out") // channels_of(module, "in")
    kept = sides.get("in", sides["out"][::multiplier] // multiplier if "out" in sides else None)
    return weight if kept is None else weight.index_select(0, _indices(kept, weight))


def set_sizes(module: nn.Module, sides: Sides) -> None:
    """Sets the size attributes of a copied module, such as ``out_channels``, to the sizes of its sliced tensors."""
    if cuts_itself(module):
        if "in" in sides:
            module.keep_inputs(sides["in"])  # type: ignore[operator]
        if "out" in sides:
            module.keep_outputs(sides["out"])  # type: ignore[operator]
        return
    depthwise = is_depthwise(module)
    if isinstance(module, nn.GroupNorm) and "out" in sides:
        _set_norm_groups(module, sides["out"])
    for side, channels in sides.items():
        for attribute in _SIZES.get(side, ()):
            if hasattr(module, attribute):
                setattr(module, attribute, len(channels))
        if side not in _SIZES and not _is_tensor(module, side):
            _set_size(module, side, len(channels))
    if isinstance(module, nn.LayerNorm) and "out" in sides:
        module.normalized_shape = (*module.normalized_shape[:-1], len(sides["out"]))
    if depthwise:
        module.groups = module.in_channels


def size_attributes(module: nn.Module) -> set[str]:
    """Returns the attributes that `set_sizes` changes with the sides ``in`` and ``out`` of a module."""
    own = {"groups", "num_groups", "normalized_shape", *_SIZES["in"], *_SIZES["out"]}
    return {name for name in own if hasattr(module, name)} if is_standard(module) else set()


def _set_norm_groups(module: nn.GroupNorm, kept: IntArray) -> None:
    """Follows a cut of whole groups; a cut of the same slots of every group leaves the group count."""
    size = module.num_channels // module.num_groups
    groups = len(np.unique(kept // size))
    if groups * size == len(kept):
        module.num_groups = groups


def _set_size(module: nn.Module, name: str, size: int) -> None:
    name, _, entry = name.partition(".")
    held = getattr(module, name)
    if entry:
        sizes = [*held[: int(entry)], size, *held[int(entry) + 1 :]]
        setattr(module, name, type(held)(sizes))
    else:
        setattr(module, name, size)


_SIZES = {
    "in": ("in_channels", "in_features"),
    "out": ("out_channels", "out_features", "num_features", "num_parameters", "num_channels"),
}


def takes_any_order(module: nn.Module) -> bool:
    """Whether a module can take the channels of a unit in any order."""
    grouped = isinstance(module, (*Convolution, *Transposed)) and module.groups > 1
    own_slots = (grouped and not is_depthwise(module)) or isinstance(module, nn.GroupNorm)
    return not cuts_itself(module) and not own_slots


def kept_side(module: nn.Module, kept: Kept, name: str, side: str) -> IntArray:
    """Returns the channels of one side that stay; all channels if the side is not cut."""
    whole: IntArray = np.arange(channels_of(module, side), dtype=np.int64)
    return kept.get((name, side), whole)


def places_of(channels: IntArray) -> IntArray:
    """Returns each channel's position in ``channels``, indexed by channel; other entries are meaningless."""
    places: IntArray = np.zeros(int(channels.max()) + 1, dtype=np.int64)
    places[channels] = np.arange(len(channels))
    return places


def replaced(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Replaces a submodule in place and returns the network; returns ``module`` if ``name`` is empty (the root)."""
    if not name:
        return module
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
    return network


def _indices(channels: IntArray, tensor: Tensor) -> Tensor:
    return torch.as_tensor(channels, device=tensor.device)


def _as_index(channels: IntArray | None, module: nn.Module) -> Tensor | None:
    if channels is None:
        return None
    tensor = next(iter((*module.parameters(recurse=False), *module.buffers(recurse=False))), None)
    return torch.as_tensor(channels, device=None if tensor is None else tensor.device)


def _like(dense: Tensor | None, values: Tensor) -> Tensor:
    if isinstance(dense, nn.Parameter):
        return nn.Parameter(values, requires_grad=dense.requires_grad)
    return values
