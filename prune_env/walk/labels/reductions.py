"""Rules of operations that mix values along some axes: pooling, sums, softmax."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prune_env.walk.labels.call import Call
from prune_env.walk.labels.ties import core, lines_along


def one_label(call: Call, labels: Tensor, axes: Sequence[int], verb: str, inexact: bool = False) -> Tensor:
    """Demands one class of labels along some axes; returns labels in which these axes have length 1.

    A mixture of several classes has label 0: no channel of it can be told apart.
    """
    lines = lines_along(labels, axes)
    call.labels.keep_together(lines, f"{call.place} {verb} them together", inexact)
    inner = core(labels)
    if not axes:
        return inner
    inner = inner.amax(dim=tuple(axes), keepdim=True)
    return torch.where(call.labels.are_together(lines).reshape(inner.shape), inner, 0)


def pooled(call: Call) -> Tensor | None:
    """Pooling over the last axes, as many as the operation's name says."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    result = call.result[0] if isinstance(call.result, (tuple, list)) else call.result
    axes = int(call.name.partition("pool")[2][0])
    return one_label(call, labels, range(labels.ndim - axes, labels.ndim), "pools").expand(result.shape)


def reduced(call: Call) -> Tensor | None:
    """A reduction over some axes, or over all."""
    labels = call.label_of(call.args[0])
    result = call.result[0] if isinstance(call.result, (tuple, list)) else call.result
    if labels is None:
        return None
    axes = _axes_of(call, labels.ndim)
    inner = one_label(call, labels, axes, "reduces", inexact=True)
    if result.ndim != inner.ndim:
        kept = [size for axis, size in enumerate(inner.shape) if axis not in axes]
        inner = inner.reshape(kept)
    return inner.expand(result.shape)


def normalised(call: Call) -> Tensor | None:
    """An operation along one axis that keeps the shape, such as softmax."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    result = call.result[0] if isinstance(call.result, (tuple, list)) else call.result
    position = 2 if call.name == "aten::topk" else 1
    axis = call.argument(position, "dim", -1) % labels.ndim
    return one_label(call, labels, [axis], "mixes").expand(result.shape)


def _axes_of(call: Call, ndim: int) -> list[int]:
    position = 2 if call.name in ("aten::linalg_vector_norm", "aten::norm") else 1
    given = call.argument(position, "dim")
    if given is None or given == []:
        return list(range(ndim))
    return sorted({axis % ndim for axis in (given if isinstance(given, (list, tuple)) else [given])})
