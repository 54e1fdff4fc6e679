"""Layer types with channels, and their channel counts."""

from torch import Tensor, nn

from prune_env.common.errors import ModelError

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


PER_CHANNEL = (nn.modules.batchnorm._NormBase, nn.PReLU, nn.GroupNorm, nn.LayerNorm)
"""Modules with a scale and a shift for each channel."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the network inside a compiled one; any other network as it is.

    Raises:
        ModelError: If this is no network.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"A network (torch.nn.Module) is needed; {type(model).__name__} given.")
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def is_layer(module: nn.Module | None) -> bool:
    """Whether a module is a convolution or a linear layer: it computes channels from channels with a weight."""
    return isinstance(module, (*Convolution, *Transposed, nn.Linear))


def is_standard(module: nn.Module | None) -> bool:
    """Whether surgery cuts a module of this type as a whole, with its size attributes."""
    return is_layer(module) or isinstance(module, PER_CHANNEL)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads exactly one input channel; a single channel is not depthwise.

    Input channel i then writes the m output channels from i*m to i*m + m - 1, where m is the depth multiplier.
    """
    return isinstance(module, (*Convolution, *Transposed)) and 1 < module.groups == module.in_channels


def rows_of(layer: nn.Module) -> Tensor:
    """Returns a layer's weight with the output channels first: [out, in / groups, ...]; detached."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if not isinstance(layer, Transposed):
        return weight
    blocks = weight.reshape(layer.groups, -1, *weight.shape[1:])
    return blocks.transpose(1, 2).flatten(0, 1)


def channels_of(module: nn.Module, side: str) -> int:
    """Returns how many channels a module has on one side; 0 for none.

    Args:
        module: A convolution, a linear layer, a per-channel module, or any module with a tensor or size attribute.
        side: ``"in"``, ``"out"``, or the name of the module's own tensor or size attribute.
    """
    if side not in ("in", "out"):
        held = held_at(module, side)
        if isinstance(held, Tensor):
            axis = tensor_axis(held)
            return 0 if axis is None else held.shape[axis]
        return held or 0
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1] if side == "out" else 0
    names = ("in_channels",) if side == "in" else ("out_channels", "num_features", "num_parameters", "num_channels")
    return next((int(value) for name in names if isinstance(value := getattr(module, name, None), int)), 0)


def held_at(module: nn.Module, name: str) -> Tensor | int | None:
    """Returns a module's own tensor or size attribute; ``name.i`` is entry i of a list of sizes; None if missing."""
    name, _, entry = name.partition(".")
    held = {**vars(module), **module._parameters, **module._buffers}.get(name)
    if entry and isinstance(held, (list, tuple)) and entry.isdecimal() and int(entry) < len(held):
        held = held[int(entry)]
    sized = isinstance(held, Tensor) or type(held) is int
    return held if sized else None


def cuts_itself(module: nn.Module | None) -> bool:
    """Whether a module cuts its own channels, by methods ``keep_inputs(kept)`` and ``keep_outputs(kept)``."""
    return hasattr(module, "keep_outputs")


def tensor_axis(tensor: Tensor) -> int | None:
    """Returns the axis of a tensor that holds one number a channel: its only axis longer than 1; None if none is."""
    long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
    return long[0] if len(long) == 1 else None
