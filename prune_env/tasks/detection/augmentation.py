"""Random augmentation of images together with their boxes, as functions of random numbers that the caller draws."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from prune_env.data import Batch
from prune_env.data.box_source import PADDING
from prune_env.tasks.augmentation import DRAWS, LEAST_AREA, MOST_STRETCH, SHIFT

__all__ = ["BOX_AUGMENTATIONS", "DRAWS", "augmented"]

SMALLEST = 2.0
"""Smallest side of a box after the augmentation, in pixels; smaller boxes are dropped [our choice]."""

Moves = Callable[[Any, list[float], tuple[int, int]], Any]
"""Moves an image or its boxes (a tensor of torchvision.tv_tensors), given an image's draws and its size."""


def _crop_flip(value: Any, draws: list[float], size: tuple[int, int]) -> Any:
    """Shifts by at most an eighth of the side, and mirrors half of the images."""
    from torchvision.transforms.v2 import functional as v2

    height, width = size
    down, right = height // SHIFT, width // SHIFT
    padded = v2.pad(value, [right, down, right, down], fill=PADDING)
    top, left = int(draws[0] * (2 * down + 1)), int(draws[1] * (2 * right + 1))
    moved = v2.crop(padded, top, left, height, width)
    return v2.horizontal_flip(moved) if draws[2] < 0.5 else moved


def _resized_crop_flip(value: Any, draws: list[float], size: tuple[int, int]) -> Any:
    """Crops, resizes the crop to the image's size, and mirrors half of the images (Szegedy et al., 2015)."""
    from torchvision.transforms.v2 import functional as v2

    height, width = size
    area = LEAST_AREA + (1.0 - LEAST_AREA) * draws[0]
    stretch = math.sqrt(math.exp((2.0 * draws[1] - 1.0) * math.log(MOST_STRETCH)))
    tall = max(1, round(height * min(1.0, math.sqrt(area) * stretch)))
    wide = max(1, round(width * min(1.0, math.sqrt(area) / stretch)))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    moved = v2.resized_crop(value, top, left, tall, wide, [height, width], antialias=True)
    return v2.horizontal_flip(moved) if draws[4] < 0.5 else moved


BOX_AUGMENTATIONS: Mapping[str, Moves | None] = MappingProxyType(
    {"none": None, "crop_flip": _crop_flip, "resized_crop_flip": _resized_crop_flip}
)
"""Augmentations by their name in ``finetune.augment``."""


def augmented(batch: Batch, draws: Tensor, name: str) -> Batch:
    """Returns the batch with moved images, and boxes moved along by torchvision.transforms.v2.

    Args:
        batch: Images [n, C, H, W] and targets with boxes and labels.
        draws: Uniform in [0, 1), float [n, `DRAWS`].
        name: One of `BOX_AUGMENTATIONS`.
    """
    move = BOX_AUGMENTATIONS[name]
    if move is None:
        return batch
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional as v2

    height, width = batch.images.shape[2:]
    images, targets = [], []
    for image, target, own in zip(batch.images, batch.targets, draws.tolist(), strict=True):
        images.append(move(tv_tensors.Image(image), own, (height, width)).as_subclass(Tensor))
        boxes: Any = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width))
        moved = move(boxes, own, (height, width))
        kept, large = v2.sanitize_bounding_boxes(moved, min_size=SMALLEST)
        targets.append({**target, "boxes": kept.as_subclass(Tensor), "labels": target["labels"][large]})
    return Batch(torch.stack(images), targets)
