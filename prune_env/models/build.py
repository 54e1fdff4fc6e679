"""Build a network by name: our own, timm's, the user's own callable, or torchvision's, looked up in this order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError, UserError
from prune_env.models.imported import build_imported
from prune_env.models.registry import MODELS
from prune_env.models.timm_models import PREFIX, build_timm, pretrained_timm
from prune_env.models.torchvision_models import build_torchvision, pretrained_torchvision, torchvision_names
from prune_env.models.unfit import UNFIT, unfit_arguments
from prune_env.models.weights import load_weights

PRETRAINED = "pretrained"


def known_models() -> tuple[str, ...]:
    """The names of our own networks and of torchvision's classifiers, sorted."""
    return tuple(sorted({*MODELS, *torchvision_names()}))


def build_model(
    name: str,
    classes: int,
    in_channels: int = 3,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a network by name and load its weights.

    Args:
        name: One of `known_models`, ``timm/NAME``, or ``package.module:callable`` for the user's own, which
            is called with ``arguments`` alone.
        classes: Outputs of the classifier; ignored with ``weights="pretrained"``, which keeps the pretrained head.
        in_channels: Channels of the input images.
        weights: A file for `load_weights`; ``"pretrained"`` for the model library's own weights; None for the random
            initialisation.
        arguments: Further keyword arguments for the network's constructor; they override ``classes``
            and ``in_channels``.

    Returns:
        The network, in training mode as its constructor leaves it, on the CPU.

    Raises:
        ModelError: If the name is unknown or the network cannot be built.
        WeightsError: If the weights are missing, damaged or made for another network.
    """
    extra = dict(arguments or {})
    if weights == PRETRAINED:
        return _build_pretrained(name, in_channels, extra)
    if name in MODELS:
        model = _build_own(name, {"classes": classes, "in_channels": in_channels, **extra})
    elif name.startswith(PREFIX):
        model = build_timm(name, classes, in_channels, extra)
    elif ":" in name:
        model = build_imported(name, extra)
    elif name in torchvision_names():
        model = build_torchvision(name, classes, in_channels, extra)
    else:
        raise _unknown(name)
    if weights is not None:
        load_weights(model, weights)
    return model


def _build_pretrained(name: str, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    if name in MODELS or ":" in name:
        raise ModelError(
            f"model.weights='pretrained': {name!r} has no pretrained weights of its own; "
            "give a .safetensors file, or leave model.weights empty"
        )
    if name.startswith(PREFIX):
        return pretrained_timm(name, in_channels, arguments)
    if name in torchvision_names():
        return pretrained_torchvision(name, in_channels, arguments)
    raise _unknown(name)


def _unknown(name: str) -> UserError:
    return MODELS.unknown(name, known=known_models(), also="timm/NAME, or ")


def _build_own(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return MODELS.find(name)(**arguments)
    except UNFIT as error:
        raise unfit_arguments(name, error) from error
