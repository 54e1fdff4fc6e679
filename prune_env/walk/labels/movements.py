"""Rules of operations that move values: they run on the labels themselves."""

import torch
from torch import Tensor

from prune_env.walk.labels.call import Call, along
from prune_env.walk.labels.reductions import one_label
from prune_env.walk.labels.ties import compressed, core


def moved(call: Call) -> Tensor | list[Tensor] | None:
    """Any movement of one tensor: the labels move alike."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    if len(call.tensors()) > 1:  # gathers by index, which may be data
        return compressed(call.run_on_labels(labels.contiguous()))
    result = call.run_on_labels(labels)
    return list(result) if isinstance(result, (list, tuple)) else result


def reshaped(call: Call) -> Tensor | None:
    """A reshape. Where channels become several axes, a cut must remove whole slices along one of them."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    result = labels.reshape(call.result.shape)
    if result.data_ptr() != labels.data_ptr():
        result = compressed(result)
    inner = core(result)
    if sum(size > 1 for size in inner.shape) > 1 and sum(size > 1 for size in core(labels).shape) < 2:
        call.labels.keep_rectangular(inner.squeeze(), _axis_that_shrinks(call, inner))
    return result


def _axis_that_shrinks(call: Call, labels: Tensor) -> int | None:
    """Returns which of the axes longer than 1 gets smaller with fewer channels; None if the code does not say.

    It is the axis of size -1, or the only axis whose size no attribute of the module holds.
    """
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    open_axes = [place for place, axis in enumerate(axes) if call.args[1][axis] == -1]
    if not open_axes:
        held = call.notes.owners.size_attribute
        open_axes = [place for place, axis in enumerate(axes) if held(call.module, labels.shape[axis]) is None]
    return open_axes[0] if len(open_axes) == 1 else None


def shuffled(call: Call) -> Tensor | None:
    """A channel shuffle as one operation: every group must lose the same slots."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    channels = along(labels, 1)
    slots = channels.reshape(int(call.args[1]), -1)
    call.labels.tie(slots.amax(dim=0), slots)
    return compressed(call.run_on_labels(labels.contiguous()))


def windows(call: Call) -> Tensor | None:
    """Windows of positions, side by side as channels; torch takes them of floating-point numbers only."""
    labels = call.label_of(call.args[0])
    return None if labels is None else compressed(call.run_on_labels(labels.double()).long())


def concatenated(call: Call) -> Tensor | None:
    """A concatenation or a stack; parts without labels count as constants."""
    parts = [call.label_of(tensor) for tensor in call.args[0]]
    if all(part is None for part in parts):
        return None
    labels = [call.of(tensor) for tensor in call.args[0]]
    axis = int(call.argument(1, "dim", 0))
    if call.name == "aten::stack":
        _keep_stackable(call, labels)
        labels = [part.unsqueeze(axis) for part in labels]
    # Axes on which all parts are constant need no memory.
    axis %= labels[0].ndim
    inner = [core(part) for part in labels]
    flat = [a for a in range(labels[0].ndim) if a != axis and all(part.shape[a] == 1 for part in inner)]
    for a in flat:
        labels = [part.narrow(a, 0, 1) for part in labels]
    return compressed(torch.cat(labels, axis)).expand(call.result.shape)


def _keep_stackable(call: Call, parts: list[Tensor]) -> None:
    """Parts that are stacked must stay of one size, so each loses as many channels as every other."""
    axes = {axis for part in parts for axis, size in enumerate(core(part).shape) if size > 1}
    if len(axes) == 1:
        call.labels.keep_balanced(torch.stack([along(part, next(iter(axes))) for part in parts]))


def padded(call: Call) -> Tensor | None:
    """Padding with a constant. Along positions the padding goes with its channel; along channels it is label 0."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    amounts = list(call.args[1])
    inner: Tensor = core(labels)
    for place in range(len(amounts) // 2):
        if inner.shape[-1 - place] == 1 and labels.shape[-1 - place] != 1:
            amounts[2 * place : 2 * place + 2] = [0, 0]
        elif min(amounts[2 * place : 2 * place + 2]) < 0:
            inner = inner.expand(labels.shape)
    if any(amounts):
        inner = torch.constant_pad_nd(inner, amounts, 0)
    return inner.expand(call.result.shape)


def resampled(call: Call) -> Tensor | None:
    """A resampling of positions: all positions of a channel must have its label."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    inner = one_label(call, labels, range(2, labels.ndim), "resamples")
    return inner.expand(call.result.shape)


def shuffled_to_pixels(call: Call) -> Tensor | None:
    """Channels that become neighbouring pixels of one channel are cut together."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    result: Tensor = call.run_on_labels(labels.contiguous())
    lines = result.flatten(0, -3).flatten(1)
    call.labels.tie_lines(lines)
    return result.amax(dim=(-2, -1), keepdim=True).expand(result.shape)


def taken_from_regions(call: Call) -> Tensor | None:
    """Regions cut out of maps: all positions of a channel must have its label."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    inner = one_label(call, labels, [0, *range(2, labels.ndim)], "resamples")
    return inner.expand(call.result[0].shape if isinstance(call.result, tuple) else call.result.shape)


def put_at_positions(call: Call) -> Tensor | None:
    """Values put at chosen entries of the first axis: they meet what stands at the other entries."""
    target, indices, values = call.args[:3]
    labels, own = call.of(target), call.of(values)
    if len([index for index in indices if index is not None]) > 1 or values.ndim != target.ndim:
        for part in (labels, own):
            call.labels.mark(part, f"its channels are overwritten by {call.place}")
        return labels
    before, after = one_label(call, labels, [0], "overwrites"), one_label(call, own, [0], "overwrites")
    call.labels.tie(before, after)
    return torch.where(before == 0, after, before).expand(target.shape)


def copied_into(call: Call) -> Tensor | None:
    """Values written into a tensor: their labels overwrite those that were there."""
    target, source = call.args[0], call.of(call.args[1])
    labels = call.label_of(target)
    if labels is None:
        return None if call.label_of(call.args[1]) is None else source.expand(target.shape).clone()
    if core(labels).shape == core(source).shape and torch.equal(core(labels), core(source)):
        return labels  # an operation on a slice in place ends with a copy of the slice to itself
    if core(labels).shape != labels.shape:
        # All entries along an axis share their memory, so a write of other labels cannot be followed.
        for part in (labels, source):
            call.labels.mark(part, f"its channels are overwritten by {call.place}")
        return labels
    labels.copy_(source.expand(target.shape))
    return labels


def split(call: Call) -> list[Tensor] | None:
    """A split into pieces of one size, which is also what ``chunk`` becomes, or of given sizes."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    axis = int(call.argument(2, "dim", 0))
    sizes = [piece.shape[axis] for piece in call.result]
    pieces = list(labels.split(sizes, axis))
    if core(labels).shape[axis] == 1 or len(sizes) == 1:
        return pieces
    listed = call.notes.owners.size_attribute(call.module, sizes, "split")
    if listed is not None:
        for number, piece in enumerate(pieces):
            call.notes.bind(call.module, f"{listed}.{number}", along(piece, axis))
        return pieces
    if len(set(sizes)) > 1:
        call.labels.mark(labels, f"its channels are split into pieces of fixed sizes by {call.place}")
        return pieces
    single = call.notes.owners.size_attribute(call.module, sizes[0], "split")
    whole = call.notes.owners.size_attribute(call.module, sum(sizes), "split")
    if single is None and whole is not None:  # code that splits at ``self.channels // 2``
        call.notes.bind(call.module, whole, along(labels, axis))
    for piece in pieces:
        if single is not None:
            call.notes.bind(call.module, single, along(piece, axis))
    call.labels.keep_balanced(torch.stack([along(piece, axis) for piece in pieces]))
    return pieces


def sliced(call: Call) -> Tensor | None:
    """A slice. Where it divides channels, an attribute of the module or equal parts must say where."""
    labels = call.label_of(call.args[0])
    if labels is None:
        return None
    result: Tensor = call.run_on_labels(labels)
    axis = int(call.argument(1, "dim", 0))
    size = labels.shape[axis]
    if core(labels).shape[axis] == 1 or result.shape[axis] == size:
        return result
    first, last, step, _ = (*call.args[2:], *(None,) * 4)[:4]
    start, stop, step = slice(first, last, step).indices(size)
    if step != 1:
        return result
    bounds = [bound for bound in (start, stop) if 0 < bound < size]
    held = [call.notes.owners.size_attribute(call.module, bound) for bound in bounds]
    places = along(labels, axis)
    if all(held):
        for name, bound in zip(held, bounds, strict=True):
            call.notes.bind(call.module, str(name), places[:bound])
    elif 2 * (stop - start) == size and start in (0, stop - start):
        call.labels.keep_balanced(places.reshape(2, -1))
    return result
