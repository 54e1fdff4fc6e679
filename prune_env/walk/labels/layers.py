"""Rules of operations with weights: they read channels, write channels, or hold one number a channel."""

import torch
from torch import Tensor

from prune_env.common.layers import PER_CHANNEL, is_layer
from prune_env.walk.labels.call import Call, along
from prune_env.walk.labels.owners import Weight
from prune_env.walk.labels.reductions import one_label
from prune_env.walk.labels.ties import core, lines_along


def convolution(call: Call) -> Tensor | None:
    """A convolution, transposed or not: reads the input channels and writes channels of its own."""
    images, weight = call.args[0], call.args[1]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    owner = call.notes.owners.weight_of(weight)
    if owner is None:
        return _without_owner(call, images, weight, call.result, groups)
    inputs = _read(call, call.of(images), 1)
    outputs = call.result.shape[1]
    applied = images if transposed else call.result
    positions = applied.numel() // applied.shape[1]
    sequence = core(call.of(images)).reshape(-1)
    if images.shape[1] == outputs == 1 < len(sequence) == positions:
        # Channels that are read one after the other are the positions, and a cut leaves fewer of them.
        call.notes.varying.append((owner.layers[0], weight.numel(), sequence))
        positions = 0
    call.notes.count(owner, call.result, positions)
    if 1 < groups == images.shape[1]:
        written = inputs.repeat_interleave(outputs // groups)
        if not written.any():
            written = call.notes.written(owner, outputs)
            call.labels.mark(written, "it filters the network's input, channel by channel")
        for layer in owner.layers:
            call.notes.bind(layer, "in", inputs)
            call.notes.bind(layer, "out", written)
    else:
        written = call.notes.written(owner, outputs)
        for layer in owner.layers:
            call.notes.bind(layer, "in", inputs)
            if outputs > 1:
                call.notes.bind(layer, "out", written)
        if groups > 1:
            for labels in (inputs, written):
                slots = labels.reshape(groups, -1)
                call.labels.tie(slots.amax(dim=0), slots)
    return _at_channels(written, call.result, 1)


def product(call: Call) -> Tensor | None:
    """A matrix product: a linear layer, or two maps."""
    *_, left, right = [tensor for tensor in call.args if isinstance(tensor, Tensor)]
    if call.name == "aten::linear":
        left, right = call.args[0], call.args[1]
    owner = call.notes.owners.weight_of(right)
    if owner is not None and owner.transposed != (call.name == "aten::linear"):
        inputs = _read(call, call.of(left), left.ndim - 1)
        written = call.notes.written(owner, call.result.shape[-1])
        call.notes.count(owner, call.result, call.result.numel() // call.result.shape[-1])
        for layer in owner.layers:
            call.notes.bind(layer, "in", inputs)
            if len(written) > 1:
                call.notes.bind(layer, "out", written)
        return _at_channels(written, call.result, call.result.ndim - 1)
    return _product_of_maps(call, left, right)


def _product_of_maps(call: Call, left: Tensor, right: Tensor) -> Tensor | None:
    """A product with a map that carries no labels reduces positions; any other product mixes channels."""
    for labels, other, axis in ((call.label_of(left), right, -1), (call.label_of(right), left, -2)):
        others = call.label_of(other)
        if labels is not None and (others is None or not core(others).any()):
            result = one_label(call, labels, [axis % labels.ndim], "reduces").expand(call.result.shape)
            channels = core(result).reshape(-1)
            if len(channels) > 1:
                macs = call.result.numel() // len(channels) * left.shape[-1]
                call.notes.varying.append((call.place, macs, channels))
            return result
    for tensor in (left, right):
        call.labels.mark(call.of(tensor), f"{call.place} multiplies maps with each other")
    return None


def batch_norm(call: Call) -> Tensor | None:
    """A norm of each channel for itself: its tensors hold one number a channel."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    channels = along(labels, 1)
    call.labels.keep_together(
        lines_along(labels, [axis for axis in range(labels.ndim) if axis != 1]), _norm_reason(call)
    )
    for tensor in call.args[1:5]:
        if isinstance(tensor, Tensor) and tensor.numel() == len(channels):
            call.labels.tie(channels, call.of(tensor).reshape(-1))
    if isinstance(call.notes.owners.modules.get(call.module), PER_CHANNEL):
        # Also a norm without tensors of its own must be told its new number of channels.
        call.notes.bind(call.module, "out", channels)
    return labels


def group_norm(call: Call) -> Tensor | None:
    """A norm within groups of channels: whole groups can be cut, and a single group cannot."""
    images, weight, bias, groups = call.args[0], call.args[1], call.args[2], int(call.args[6])
    labels = call.label_of(images)
    if labels is None:
        return None
    channels = along(labels, 1)
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            call.labels.tie(channels, call.of(tensor).reshape(-1))
    if call.notes.owners.group_norm_of(call.module):
        call.notes.bind(call.module, "out", channels)
    lines = channels.reshape(groups, -1)
    if groups == 1 or call.notes.owners.approximate or not call.notes.owners.group_norm_of(call.module):
        call.labels.keep_together(lines, _norm_reason(call), inexact=True)
        call.labels.tie(lines.amax(dim=0), lines)
    else:
        call.labels.tie_lines(lines)
    return labels


def layer_norm(call: Call) -> Tensor | None:
    """A norm over the last axes: channels there are mixed."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    axes = range(labels.ndim - len(call.args[1]), labels.ndim)
    call.labels.keep_together(lines_along(labels, axes), _norm_reason(call), inexact=True)
    for tensor in call.args[2:4]:
        if isinstance(tensor, Tensor) and len(axes) == 1:
            call.labels.tie(along(labels, -1), call.of(tensor).reshape(-1))
    return labels


def _norm_reason(call: Call) -> str:
    return f"{call.place} normalises them together"


def _read(call: Call, labels: Tensor, axis: int) -> Tensor:
    """Returns one label for each input channel; labels that share an input channel are cut together."""
    others = [other for other in range(labels.ndim) if other != axis]
    lines = lines_along(labels, others)
    if lines.shape[1] > 1:
        if labels.shape[axis] == 1:
            reason = f"{call.place} reads them one after the other as positions of a single channel"
            call.labels.keep_together(lines, reason, inexact=True)
            return torch.where(call.labels.are_together(lines), along(labels, axis), 0)
        call.labels.tie_lines(lines)
    return along(labels, axis)


def _at_channels(labels: Tensor, result: Tensor, axis: int) -> Tensor:
    return labels.reshape(-1, *[1] * (result.ndim - 1 - axis)).expand(result.shape)


def _without_owner(call: Call, images: Tensor, weight: Tensor, result: Tensor, groups: int) -> Tensor | None:
    """A convolution whose weight is no layer's parameter: a fixed filter, or a weight computed from other tensors."""
    labels = call.label_of(images)
    layer = call.notes.owners.modules.get(call.module)
    if is_layer(layer):
        return _computed(call, Weight((call.module,)), images, result)
    if labels is None:
        return None
    if 1 < groups == images.shape[1] == result.shape[1] and call.label_of(weight) is None:
        # A fixed filter, such as a blur, follows a cut if its code makes it for the channels at hand.
        channels = along(labels, 1)
        macs = result.numel() // result.shape[1] * weight[0].numel()
        call.notes.varying.append((call.place, macs, channels))
        one_label(call, labels, [0, *range(2, labels.ndim)], "filters")
        return _at_channels(channels, result, 1)
    call.labels.mark(labels, f"the weight of {call.place} belongs to no convolution layer")
    return None


def _computed(call: Call, owner: Weight, images: Tensor, result: Tensor) -> Tensor:
    """A layer that computes its weight when it runs, by weight standardisation or a weight norm."""
    inputs, written = along(call.of(images), 1), call.notes.written(owner, result.shape[1])
    name = owner.layers[0]
    call.notes.count(owner, result, result.numel() // result.shape[1])
    plain = "weight" in call.notes.owners.modules[name]._parameters and int(call.args[8]) == 1
    if plain:
        call.notes.bind(name, "in", inputs)
        for tensor, _, places in call.notes.owners.holders:
            if places[0][0] == name and tensor.numel() == len(written):
                call.labels.tie(written, call.of(tensor).reshape(-1))
    for labels in (inputs, written):
        if plain:
            call.labels.mark(labels, f"{name!r} standardises its weight", inexact=True)
        else:
            call.labels.mark(
                labels,
                f"{name!r} computes its weight from other tensors; make it plain first (torch.nn.utils.prune.remove, "
                "remove_weight_norm, or parametrize.remove_parametrizations)",
            )
    if result.shape[1] > 1:
        call.notes.bind(name, "out", written)
    return _at_channels(written, result, 1)
