"""Layer types with channels, and their channel counts."""

from torch import nn

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads exactly one input channel, its own; a single channel is not depthwise."""
    return isinstance(module, Convolution) and 1 < module.groups == module.in_channels == module.out_channels


def channels_of(module: nn.Module, side: str) -> int:
    """Returns how many channels a convolution, linear layer or per-channel module has on one side; 0 for none."""
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    names = ("in_channels",) if side == "in" else ("out_channels", "num_features", "num_parameters")
    return next((int(value) for name in names if isinstance(value := getattr(module, name, None), int)), 0)


def cuts_itself(module: nn.Module | None) -> bool:
    """Whether a module cuts its own channels, by methods ``keep_inputs(kept)`` and ``keep_outputs(kept)``."""
    return hasattr(module, "keep_outputs")
