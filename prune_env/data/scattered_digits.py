"""The embedded default of detection: scikit-learn's digits scattered over grey canvases."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prune_env.data.box_source import BoxedImages, BoxSource
from prune_env.data.boxes import LeftOut, box_target
from prune_env.data.catalogue import digits_arrays
from prune_env.data.registry import register_source
from prune_env.data.source import ImageSize

SIDE = 96
"""Height and width of a canvas, in pixels."""

IMAGES = {"train": 2000, "test": 400}
DIGITS = (3, 7)
SIDES = (14, 36)
"""Smallest and largest number of digits on a canvas, and side of a digit in pixels."""

OVERLAP = 0.1
"""Largest share of a digit that another digit may cover."""

TRIES = 20
"""Places that are tried for a digit before it is left out."""


@register_source("scattered_digits")
def load_scattered_digits(_path: Path | None = None, _image_size: ImageSize | None = None) -> BoxSource:
    """scikit-learn's digits on canvases of 96x96, with boxes: 2,000 training and 400 test images, one channel."""
    return _made()


@cache
def _made() -> BoxSource:
    digits = digits_arrays()
    # Digits of the test images are none of the training images'; a fixed seed, because images belong to the data set.
    parts = {
        split: _scattered(part.images[..., 0], part.labels, IMAGES[split], seed)
        for seed, (split, part) in enumerate({"train": digits.train, "test": digits.test}.items())
    }
    names = tuple(map(str, range(10)))
    return BoxSource("scattered_digits", names, (SIDE, SIDE), parts["train"], parts["test"], 1, "none")


def _scattered(digits: NDArray[np.uint8], labels: NDArray[np.int64], count: int, seed: int) -> BoxedImages:
    """Draws images; digits are lighter than their canvas, and noise lies over both."""
    random = np.random.default_rng(seed)
    images, targets = np.empty((count, SIDE, SIDE, 1), np.uint8), []
    for number in range(count):
        canvas = np.full((SIDE, SIDE), random.uniform(0.1, 0.4), np.float32)
        boxes = _places(random)
        chosen, inks = random.integers(len(digits), size=len(boxes)), random.uniform(0.7, 1.0, len(boxes))
        for (x0, y0, x1, y1), digit, ink in zip(boxes.tolist(), digits[chosen], inks.tolist(), strict=True):
            strokes = np.asarray(Image.fromarray(digit * 15).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR))
            canvas[y0:y1, x0:x1] += (ink - canvas[y0:y1, x0:x1]) * (strokes / np.float32(240.0))
        noise = random.standard_normal((SIDE, SIDE), np.float32)
        images[number, ..., 0] = np.clip(255.0 * (canvas + 0.04 * noise), 0.0, 255.0)
        targets.append(box_target(boxes, labels[chosen] + 1, (SIDE, SIDE), LeftOut()))
    return BoxedImages(images, targets)


def _places(random: np.random.Generator) -> NDArray[np.int64]:
    """Draws the boxes of an image, x0, y0, x1, y1, int64 [k, 4]; a digit that finds no place is left out."""
    count = random.integers(DIGITS[0], DIGITS[1] + 1)
    sides = random.integers(SIDES[0], SIDES[1] + 1, size=count)
    corners = (random.random((count, TRIES, 2)) * (SIDE - sides + 1)[:, None, None]).astype(np.int64)
    boxes = np.empty((0, 4), np.int64)
    for side, places in zip(sides, corners, strict=True):
        tried = np.concatenate([places, places + side], axis=1)
        common = np.minimum(tried[:, None, 2:], boxes[:, 2:]) - np.maximum(tried[:, None, :2], boxes[:, :2])
        smaller = np.minimum(side, boxes[:, 2] - boxes[:, 0]) ** 2
        free = (common.clip(0).prod(axis=2) <= OVERLAP * smaller).all(axis=1)
        boxes = np.concatenate([boxes, tried[free][:1]])
    return boxes
