"""Detectors of torchvision, by torchvision's own names."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError, WeightsError
from prune_env.models.unfit import unfit_arguments

MORE = ("keypointrcnn", "maskrcnn")
"""Detectors whose targets need more than boxes."""


@cache
def torchvision_detectors() -> tuple[str, ...]:
    """The detectors of ``torchvision.models.detection`` that learn from boxes alone, sorted."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models.detection)
    return tuple(sorted(name for name in names if not name.startswith(MORE)))


def pretrained_names(name: str) -> tuple[str, ...]:
    """The class names of torchvision's own weights by label; label 0 is the background.

    Args:
        name: One of `torchvision_detectors`.
    """
    import torchvision

    return tuple(torchvision.models.get_model_weights(name)["DEFAULT"].meta["categories"])


def build_torchvision_detector(
    name: str, classes: int, in_channels: int, pretrained: bool, arguments: Mapping[str, Any]
) -> nn.Module:
    """Builds a detector of torchvision; label 0 is the background.

    Args:
        name: One of `torchvision_detectors`.
        classes: Number of classes, without the background; ignored with ``pretrained``.
        in_channels: Must be 3.
        pretrained: Whether to load torchvision's weights for COCO, downloaded on the first use.
        arguments: Further keyword arguments of torchvision's function.

    Raises:
        ModelError: If the images do not have 3 channels or the detector does not take an argument.
        WeightsError: If the weights cannot be downloaded or loaded.
    """
    import torchvision

    if in_channels != 3:
        raise ModelError(
            f"model {name!r} takes images of 3 channels; the data has {in_channels}. Give centre_detector, or data in "
            "colour."
        )
    # torchvision would download the backbone's weights unless told otherwise.
    own: dict[str, Any] = {"weights": "DEFAULT"} if pretrained else {"weights": None, "num_classes": classes + 1}
    settings = {**own, "weights_backbone": None, **arguments}
    try:
        model: nn.Module = torchvision.models.get_model(name, **settings)
    except (TypeError, ValueError) as error:
        raise unfit_arguments(name, error) from error
    except Exception as error:
        raise WeightsError(
            f"torchvision's pretrained weights of {name!r} could not be loaded: {error}; check the network connection, "
            "or give a file with model.weights=PATH"
        ) from error
    return model
