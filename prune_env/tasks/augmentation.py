"""Random augmentation of a batch of images, as functions of random numbers that the caller draws.

Every process of a training draws the numbers of the whole batch and augments its own share of the images.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 5
"""Random numbers per image."""

SHIFT = 8
"""The largest shift is the image's side divided by this number: 4 of 32 pixels, as for CIFAR in He et al. (2016)."""

LEAST_AREA = 0.35
"""Least area of a crop, as a share of the image: above the usual 0.08, because trainings are short [our choice]."""

MOST_STRETCH = 4 / 3
"""Largest ratio of a crop's longer side to its shorter side, before clipping to the image."""

Augmentation = Callable[[Tensor, Tensor], Tensor]


def unchanged(images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG001
    """Returns the images unchanged."""
    return images


def crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Shifts each image, fills with zeros (the mean colour of normalised images), and mirrors half of the images.

    Args:
        images: float [N, C, H, W].
        draws: Uniform in [0, 1), float [N, `DRAWS`].
    """
    height, width = images.shape[2:]
    pad = [height // SHIFT, width // SHIFT]
    padded = F.pad(images, (pad[1], pad[1], pad[0], pad[0]))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = ((draws[:, i] * (2 * pad[i] + 1)).long() for i in range(2))
    shifted = windows[torch.arange(len(images), device=images.device), :, rows, columns]
    return torch.where((draws[:, 2] < 0.5)[:, None, None, None], shifted.flip(3), shifted)


def resized_crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Crops each image, resizes the crop to the image's size, and mirrors half of the images (Szegedy et al., 2015).

    Args:
        images: float [N, C, H, W].
        draws: Uniform in [0, 1), float [N, `DRAWS`].
    """
    area = LEAST_AREA + (1.0 - LEAST_AREA) * draws[:, 0]
    stretch = torch.exp((2.0 * draws[:, 1] - 1.0) * math.log(MOST_STRETCH)).sqrt()
    tall, wide = ((area.sqrt() * side).clamp(max=1.0) for side in (stretch, 1.0 / stretch))
    mirrored = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    boxes = torch.zeros(len(images), 2, 3, device=images.device)
    boxes[:, 0, 0], boxes[:, 0, 2] = wide * mirrored, (1.0 - wide) * (2.0 * draws[:, 2] - 1.0)
    boxes[:, 1, 1], boxes[:, 1, 2] = tall, (1.0 - tall) * (2.0 * draws[:, 3] - 1.0)
    grid = F.affine_grid(boxes, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {"none": unchanged, "crop_flip": crop_flip, "resized_crop_flip": resized_crop_flip}
)
"""Augmentations by their name in ``finetune.augment``."""
