"""The layer types that channels run through, and how many channels each has."""

from torch import nn

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads its own input channel; a convolution of width 1 is not depthwise."""
    return isinstance(module, Convolution) and 1 < module.groups == module.in_channels == module.out_channels


def channels_of(module: nn.Module, side: str) -> int:
    """How many channels a convolution, linear layer or per-channel module has on one side."""
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    names = ("in_channels",) if side == "in" else ("out_channels", "num_features", "num_parameters")
    return next((int(value) for name in names if isinstance(value := getattr(module, name, None), int)), 0)
