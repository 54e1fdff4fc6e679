"""Image classifiers of torchvision, by torchvision's own names.

The functions import torchvision themselves, because the import takes a second and our own networks do not need it.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError, WeightsError
from prune_env.common.variables import with_variable
from prune_env.models.unfit import UNFIT, unfit_arguments

# Auxiliary heads are needed for training from scratch only, and make the output a tuple.
_WITHOUT_AUXILIARY_HEADS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


@cache
def torchvision_names() -> frozenset[str]:
    """The classifiers of ``torchvision.models``, without detection, segmentation and quantised networks."""
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


def torchvision_builders() -> dict[str, Callable[..., nn.Module]]:
    """Returns the functions that build the `torchvision_names`, sorted by name."""
    import torchvision

    return {name: torchvision.models.get_model_builder(name) for name in sorted(torchvision_names())}


def build_torchvision(name: str, classes: int, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a torchvision classifier with random weights.

    Args:
        name: One of `torchvision_names`.
        classes: Outputs of the classifier.
        in_channels: Must be 3.
        arguments: Further keyword arguments of torchvision's builder.

    Returns:
        The network, without auxiliary heads.

    Raises:
        ModelError: If the images do not have 3 channels or the network does not take an argument.
    """
    import torchvision

    _check_channels(name, in_channels)
    settings = {"num_classes": classes, **_WITHOUT_AUXILIARY_HEADS.get(name, {}), **arguments}
    try:
        model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    except UNFIT as error:
        raise unfit_arguments(name, error) from error
    return model


def pretrained_torchvision(name: str, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a torchvision classifier with torchvision's default weights, downloaded on the first use.

    Args:
        name: One of `torchvision_names`.
        in_channels: Must be 3.
        arguments: Further keyword arguments of torchvision's builder.

    Returns:
        The network with the classes that it was trained on, without auxiliary heads.

    Raises:
        ModelError: If the images do not have 3 channels or the network does not take an argument.
        WeightsError: If the weights cannot be downloaded or loaded.
    """
    import torchvision

    _check_channels(name, in_channels)
    # googlenet drops its auxiliary heads itself after loading, and refuses aux_logits=False.
    settings = {"aux_logits": False, **arguments} if name == "inception_v3" else dict(arguments)
    try:
        # torchvision's download helper calls torch.load(weights_only=False); this switch of torch overrides it.
        with with_variable("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
            model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT", progress=False, **settings)
    except (TypeError, ValueError) as error:
        raise unfit_arguments(name, error) from error
    except Exception as error:
        raise WeightsError(
            f"torchvision's pretrained weights of {name!r} could not be loaded: {error}; "
            "check the network connection, or give a file with model.weights=PATH"
        ) from error
    return model


def _check_channels(name: str, in_channels: int) -> None:
    if in_channels != 3:
        raise ModelError(
            f"model {name!r}: torchvision's networks read 3 input channels, the data set has {in_channels}; "
            "take one of our own networks, timm/NAME, or package.module:callable"
        )
