"""Pictures of networks' outputs on a few images: one row an image, one column a network."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from prune_env.common.modes import in_eval_mode
from prune_env.data import Batch, Splits, load_images
from prune_env.evaluation.evaluator import Evaluator
from prune_env.tasks import draws_pictures, pictures_of

IMAGES = 4
"""Images in a picture [our choice]."""

GAP = 8
"""White pixels between two images."""


def compared_pictures(
    evaluator: Evaluator, splits: Splits, networks: Mapping[str, nn.Module], seed: int
) -> NDArray[np.uint8] | None:
    """Draws what networks say about a few images of the test set, side by side.

    Args:
        evaluator: Gives the task and the device.
        splits: The data.
        networks: Networks by name, on the evaluator's device; one column each.
        seed: Chooses the images.

    Returns:
        The picture, uint8 [height, width, 3]; None if the task has no pictures, or the data no test images.
    """
    if not draws_pictures(evaluator.task) or not len(splits.test_indices):
        return None
    generator = np.random.default_rng([seed, 2])
    count = min(IMAGES, len(splits.test_indices))
    chosen = np.sort(generator.choice(splits.test_indices, count, replace=False))
    images = load_images(splits.source, "test", chosen).to(evaluator.device)
    batch, columns = Batch(images.images, images.targets), []
    for network in networks.values():
        with in_eval_mode(network), torch.no_grad():
            outputs = evaluator.task.forward(network, batch)
        drawn = pictures_of(evaluator.task, splits.source, batch, outputs)
        columns.append(np.concatenate([_framed(picture) for picture in drawn]))
    return np.concatenate(columns, axis=1)


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """The picture as the bytes of a PNG file."""
    file = BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
