"""Networks of timm, an optional dependency, by ``timm/NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError, WeightsError, suggest

PREFIX = "timm/"


def timm_builders() -> dict[str, Callable[..., nn.Module]]:
    """Returns the functions that build timm's networks, by timm's own names; none where timm is not installed."""
    try:
        import timm
    except ImportError:
        return {}
    return {name: timm.models.model_entrypoint(name) for name in timm.list_models()}


def build_timm(name: str, classes: int, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network of timm with random weights.

    Args:
        name: ``timm/`` and timm's own name, for example ``timm/resnet18``.
        classes: Outputs of the classifier.
        in_channels: Channels of the input images.
        arguments: Further keyword arguments of ``timm.create_model``.

    Returns:
        The network.

    Raises:
        ModelError: If timm is not installed, does not know the name or cannot build it.
    """
    timm, short = find_timm(name)
    settings = {"num_classes": classes, "in_chans": in_channels, **arguments}
    try:
        model: nn.Module = timm.create_model(short, pretrained=False, **settings)
    except Exception as error:
        raise ModelError(f"model {name!r} cannot be built with model.arguments: {error}") from error
    return model


def pretrained_timm(name: str, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network of timm with timm's default weights, downloaded on the first use.

    Args:
        name: ``timm/`` and timm's own name.
        in_channels: Channels of the input images; timm adapts the stem's weights to them.
        arguments: Further keyword arguments of ``timm.create_model``.

    Returns:
        The network with the classes that it was trained on.

    Raises:
        ModelError: If timm is not installed or does not know the name or the arguments.
        WeightsError: If the weights cannot be downloaded or loaded.
    """
    timm, short = find_timm(name)
    try:
        model: nn.Module = timm.create_model(short, pretrained=True, **{"in_chans": in_channels, **arguments})
    except TypeError as error:
        raise ModelError(f"model {name!r} cannot be built with model.arguments: {error}") from error
    except Exception as error:
        raise WeightsError(
            f"timm's pretrained weights of {short!r} could not be loaded: {error}; "
            "check the network connection, or give a file with model.weights=PATH"
        ) from error
    return model


def find_timm(name: str) -> tuple[Any, str]:
    """The timm module and the network's name without the prefix."""
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model {name!r} needs timm, which is not installed: pip install prune-env[timm]") from error
    short = name.removeprefix(PREFIX)
    if not timm.is_model(short):
        raise ModelError(f"timm has no model {short!r}; {suggest(short, timm.list_models())}")
    return timm, short
