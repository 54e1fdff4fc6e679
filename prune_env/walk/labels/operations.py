"""The rules: what each operation of a forward pass does to the labels of its inputs.

A rule takes a `Call` and returns the labels of the call's result; on the way it ties labels or says why they cannot be
cut. The rules are found by the operation's ATen name. Operations that only move values run on the labels themselves, so
their rule is exact. An operation without a rule protects all channels that it reads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.walk.labels.call import Call, along
from prune_env.walk.labels.layers import batch_norm, convolution, group_norm, layer_norm, product
from prune_env.walk.labels.movements import (
    concatenated,
    copied_into,
    moved,
    padded,
    put_at_positions,
    resampled,
    reshaped,
    shuffled,
    shuffled_to_pixels,
    sliced,
    split,
    taken_from_regions,
    windows,
)
from prune_env.walk.labels.reductions import normalised, pooled, reduced
from prune_env.walk.labels.ties import core

Rule = Callable[[Call], Any]
"""Returns the labels of the result: a tensor of its shape or None, or a list of these where the result is a list."""


def combined(call: Call) -> Tensor | None:
    """Element by element: labels that meet are tied; the result has the labels of whichever input has some."""
    result = call.result
    if not isinstance(result, Tensor):
        return None
    labels: Tensor | None = None
    for tensor in call.tensors():
        own = call.label_of(tensor)
        if own is None:
            continue
        labels = own if labels is None else met(call, labels, own)
    if labels is None:
        return None
    for tensor in call.tensors():
        if isinstance(tensor, nn.Parameter) and call.label_of(tensor) is None:
            _refuse_positions(call, tensor, core(labels))
    return labels.expand(result.shape)


def _refuse_positions(call: Call, parameter: nn.Parameter, labels: Tensor) -> None:
    """Marks channels that meet a parameter with several numbers a channel, such as an embedding of positions."""
    shape = (1,) * (labels.ndim - parameter.ndim) + tuple(parameter.shape)
    if any(size > 1 and held > 1 for size, held in zip(labels.shape, shape[-labels.ndim :], strict=True)):
        call.labels.mark(
            labels, f"{call.place} combines its channels with a parameter of shape {list(parameter.shape)}"
        )


def met(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """Ties two broadcasting label tensors and returns the labels of their combination."""
    shape = torch.broadcast_shapes(left.shape, right.shape)
    left, right = core(left), core(right)
    left, right = _without_factors(call, left, right), _without_factors(call, right, left)
    call.labels.tie(left, right)
    return torch.where(left == 0, right, left).expand(shape)


def _without_factors(call: Call, own: Tensor, other: Tensor) -> Tensor:
    """Returns labels without those of bare parameters whose single numbers meet several channels of another tensor.

    Such numbers weigh whole maps, or stand for positions, so they hold no channel.
    """
    padded = own.reshape((1,) * (other.ndim - own.ndim) + own.shape)
    for axis in range(-min(other.ndim, padded.ndim), 0):
        if padded.shape[axis] == 1 < other.shape[axis] and bool((other != other.narrow(axis, 0, 1)).any()):
            return torch.where(call.labels.bare(own), 0, own)
    return own


def gated(call: Call) -> Tensor | None:
    """The first half of the channels times a gate made of the second half."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    axis = int(call.argument(1, "dim", -1)) % labels.ndim
    halves = labels.chunk(2, axis)
    if core(labels).shape[axis] > 1:
        call.labels.keep_balanced(torch.stack([along(piece, axis) for piece in halves]))
    return met(call, *halves)


def constant(call: Call) -> Tensor:
    """A tensor of constants, in memory of its own, so that code may write channels into it."""
    return torch.zeros(call.result.shape, dtype=torch.int64)


def unknown(call: Call) -> None:
    """An operation without a rule: whatever it reads cannot be cut."""
    for tensor in call.tensors():
        labels = call.label_of(tensor)
        if labels is not None:
            call.labels.mark(labels, f"its channels pass through {call.place}, an operation without a rule")


def restrided(call: Call) -> Tensor | None:
    """Another layout of the same values has the same labels; any other view by strides is unknown."""
    labels = call.label_of(call.args[0])
    if labels is not None and call.result.shape == labels.shape:
        return labels
    unknown(call)
    return None


def random(_call: Call) -> None:
    """Numbers drawn at random: constants as far as channels are concerned."""


_NAMES: dict[Rule, str] = {
    convolution: "convolution _convolution convolution_overrideable",
    product: "addmm mm bmm baddbmm linear matmul",
    batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm",
    group_norm: "native_group_norm",
    layer_norm: "native_layer_norm _fused_rms_norm",
    reshaped: "view _unsafe_view reshape _reshape_alias",
    moved: "permute transpose t squeeze unsqueeze select unbind expand repeat repeat_interleave unfold roll flip index "
    "index_select gather diagonal pixel_unshuffle",
    shuffled: "channel_shuffle native_channel_shuffle",
    windows: "im2col",
    gated: "glu",
    restrided: "as_strided as_strided_",
    concatenated: "cat stack",
    sliced: "slice",
    split: "split split_with_sizes",
    padded: "constant_pad_nd",
    shuffled_to_pixels: "pixel_shuffle",
    copied_into: "copy copy_",
    put_at_positions: "index_put_",
    taken_from_regions: "torchvision::roi_align torchvision::roi_pool",
    resampled: "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d",
    pooled: "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    reduced: "mean sum prod amax amin max min var std var_mean std_mean norm linalg_vector_norm logsumexp argmax "
    "argmin",
    normalised: "_softmax _log_softmax cumsum cumprod sort topk",
    constant: "zeros ones empty full zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full",
    random: "rand_like randn_like bernoulli",
    combined: "hardswish hardswish_ detach alias lift_fresh _to_copy contiguous fill_ zero_ native_dropout prelu "
    "_prelu_kernel masked_fill_",
}

RULES: dict[str, Rule] = {
    name if "::" in name else f"aten::{name}": rule for rule, names in _NAMES.items() for name in names.split()
}
"""The rule of each operation by its ATen name, without the overload."""

WRITERS = (convolution, product)
"""The rules that give labels to the result also where no input has any."""


def rule_for(function: Any) -> Rule:
    """Returns the rule of an operation: the table's, that of any element-wise operation, or `unknown`."""
    name = str(function.name()).partition(".")[0]
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in function.tags:
        return combined
    return unknown
