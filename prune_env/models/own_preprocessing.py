"""The preprocessing that a library's pretrained weights name for their images."""

import math

from prune_env.data import Preprocessing
from prune_env.models.build import PRETRAINED
from prune_env.models.timm_models import PREFIX, find_timm
from prune_env.models.torchvision_models import torchvision_names


def own_preprocessing(name: str, weights: str | None) -> Preprocessing | None:
    """Returns the preprocessing that the pretrained weights of a classifier name; downloads nothing.

    Args:
        name: The network's name, as in `build_model`.
        weights: As in `build_model`.

    Returns:
        The transforms of torchvision's default weights, or timm's data configuration; None for other weights.

    Raises:
        ModelError: If the network is one of timm's, and timm is not installed or does not know it.
    """
    if weights != PRETRAINED:
        return None
    if name.startswith(PREFIX):
        return _of_timm(name)
    return _of_torchvision(name) if name in torchvision_names() else None


def _of_torchvision(name: str) -> Preprocessing:
    import torchvision

    transforms = torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    return Preprocessing(
        transforms.crop_size[0],
        transforms.resize_size[0],
        transforms.interpolation.value,
        tuple(transforms.mean),
        tuple(transforms.std),
    )


def _of_timm(name: str) -> Preprocessing:
    timm, short = find_timm(name)
    config = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(short).to_dict())
    size = config["input_size"][-1]
    # As in timm's own evaluation transforms.
    resize = math.floor(size / config["crop_pct"])
    mode = config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else None
    return Preprocessing(size, resize, mode, tuple(config["mean"]), tuple(config["std"]))
