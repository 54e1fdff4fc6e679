"""Detectors by name: our own small one, torchvision's, or the user's own callable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ModelError, WeightsError
from prune_env.common.registry import Registry
from prune_env.models.build import PRETRAINED
from prune_env.models.centre_detector import centre_detector
from prune_env.models.imported import build_imported
from prune_env.models.listing import first_sentence
from prune_env.models.torchvision_detectors import (
    build_torchvision_detector,
    pretrained_names,
    torchvision_detectors,
)
from prune_env.models.unfit import UNFIT, unfit_arguments
from prune_env.models.weights import load_weights

DETECTORS: Registry[Any] = Registry("detector", "model.name", ModelError)
DETECTORS.add("centre_detector", centre_detector)


def build_detector(
    name: str, classes: int, in_channels: int, weights: str | Path | None, arguments: Mapping[str, Any]
) -> nn.Module:
    """Builds a detector by name and loads its weights.

    Args:
        name: ``centre_detector``, a detector of torchvision by torchvision's name, or ``package.module:callable`` for
            the user's own, which is called with ``arguments`` alone. It is called with a list of images.
        classes: Number of classes, without the background.
        in_channels: Channels of the input images.
        weights: A file; ``"pretrained"`` for torchvision's own weights; None for random weights.
        arguments: Further keyword arguments of the function that builds the detector.

    Returns:
        The detector on the CPU.

    Raises:
        ModelError: If the name is unknown or the detector cannot be built.
        WeightsError: If the weights are missing, damaged or made for another detector.
    """
    known = torchvision_detectors()
    if name in DETECTORS:
        try:
            model: nn.Module = DETECTORS.find(name)(**{"classes": classes, "in_channels": in_channels, **arguments})
        except UNFIT as error:
            raise unfit_arguments(name, error) from error
    elif name in known:
        model = build_torchvision_detector(name, classes, in_channels, weights == PRETRAINED, arguments)
    elif ":" in name:
        model = taking_batches(build_imported(name, arguments))
    else:
        raise DETECTORS.unknown(name, known=[*DETECTORS, *known])
    if weights == PRETRAINED and name not in known:
        raise WeightsError(
            f"model.weights='pretrained': {name!r} has no pretrained weights of its own; give a .safetensors file, or "
            "leave model.weights empty"
        )
    if weights is not None and weights != PRETRAINED:
        load_weights(model, weights)
    return model


def check_pretrained_names(name: str, weights: str | Path | None, names: Sequence[str]) -> None:
    """Refuses torchvision's own weights for a data set whose labels mean something else.

    Args:
        name: The detector's name.
        weights: As in `build_detector`.
        names: The data set's class names, from label 1; empty if they are not known.

    Raises:
        WeightsError: Names the first label that differs.
    """
    if weights != PRETRAINED or name not in torchvision_detectors():
        return
    known = pretrained_names(name)
    for label, own in enumerate(names, start=1):
        trained = known[label] if label < len(known) else "nothing"
        if own.lower() != trained.lower() and own != f"unused {label}":
            raise WeightsError(
                f"model.weights='pretrained': label {label} is {own!r} in the data set, but {trained!r} to {name!r}, "
                "which was trained on COCO with ids of 1 to 90. Give data with these ids; weights of a detector that "
                "was trained on your data; or model.arguments.weights_backbone=DEFAULT, to train a pretrained backbone."
            )


def detector_summaries() -> dict[str, str]:
    """Returns a line for each detector: our own, then torchvision's."""
    import torchvision

    builders = {name: torchvision.models.get_model_builder(name) for name in torchvision_detectors()}
    return {**DETECTORS.summaries(), **{name: first_sentence(build) for name, build in builders.items()}}


def taking_batches(model: nn.Module) -> nn.Module:
    """Lets a detector also take its images as one tensor [N, C, H, W]; changes it in place and returns it."""
    model.register_forward_pre_hook(_as_list)
    return model


def _as_list(_model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A batch of images as the list of images that the contract names; also where a network runs on images alone."""
    if args and isinstance(args[0], Tensor) and args[0].ndim == 4:
        return list(torch.unbind(args[0])), *args[1:]
    return args
