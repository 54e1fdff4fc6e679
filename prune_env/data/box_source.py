"""Data sets of images with boxes, in memory or on disk."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prune_env.common.errors import DataError
from prune_env.data.boxes import BoxTarget
from prune_env.data.image_file import opened_image, rgb_of
from prune_env.data.source import Indices, Split

PADDING = 0.5
"""Intensity beside an image that has another shape than the canvas, in 0..1 [our choice]."""

DEFAULT_SIDE = 320
"""Height and width of the canvas in pixels, if the user gives none: that of torchvision's smallest detectors."""


@dataclass(frozen=True)
class ImageFile:
    """An image file and the height and width, in pixels, that its boxes refer to."""

    path: Path
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class BoxedImages:
    """The images and boxes of one split.

    Attributes:
        images: uint8 [N, height, width, channels] in memory, or files.
        targets: The boxes and labels of every image, in pixels of the loaded images.
    """

    images: NDArray[np.uint8] | Sequence[ImageFile] = field(repr=False)
    targets: Sequence[BoxTarget] = field(repr=False)


@dataclass(frozen=True, eq=False)
class BoxSource:
    """An `ImageSource` whose targets are boxes; intensities are in 0..1, as torchvision's detectors expect.

    An image file is resized to fit the canvas, with its proportions; the rest of the canvas, at the right or the
    bottom, is grey. So images of different sizes come as one tensor, and a network sees the same pixels in training,
    recalibration and evaluation [our choice].

    Attributes:
        name: The data set's name.
        names: Names of the classes by label, from label 1.
        size: Height and width of the canvas, in pixels.
        train: The training split.
        test: The test split.
        channels: Channels of the loaded images.
        augment: The usual augmentation in training.
    """

    name: str
    names: tuple[str, ...]
    size: tuple[int, int]
    train: BoxedImages
    test: BoxedImages
    channels: int = 3
    augment: str = "crop_flip"

    @property
    def classes(self) -> int:
        """Number of classes; labels number them 1..classes, because 0 is a detector's background."""
        return len(self.names)

    @property
    def mean(self) -> tuple[float, ...]:
        """Zeros: detectors normalise images themselves."""
        return (0.0,) * self.channels

    @property
    def std(self) -> tuple[float, ...]:
        """Ones, as for `mean`."""
        return (1.0,) * self.channels

    def targets(self, split: Split) -> Sequence[BoxTarget]:
        """The boxes and labels of every image of a split."""
        return self._of(split).targets

    def load(self, split: Split, indices: Indices) -> Tensor:
        """The images at ``indices`` of a split in 0..1, float32 [n, channels, height, width].

        Raises:
            DataError: If a file cannot be read as an image, or has another size than its boxes refer to.
        """
        images = self._of(split).images
        if isinstance(images, np.ndarray):
            chosen = torch.from_numpy(images[indices]).permute(0, 3, 1, 2)
            return chosen.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        loaded = torch.full((len(indices), self.channels, *self.size), PADDING)
        # Decoding releases the interpreter lock, so threads run in parallel.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for place, image in enumerate(pool.map(self._read, (images[index] for index in indices.tolist()))):
                loaded[place, :, : image.shape[1], : image.shape[2]] = image
        return loaded

    def _of(self, split: Split) -> BoxedImages:
        return self.train if split == "train" else self.test

    def _read(self, file: ImageFile) -> Tensor:
        height, width = fitted(file.size, self.size)
        with opened_image(file.path, self.name) as opened:
            if (opened.height, opened.width) != file.size:
                raise DataError(
                    f"data set {self.name!r}: {file.path} has {opened.height}x{opened.width} pixels, but its "
                    f"annotation says {file.size[0]}x{file.size[1]}, so its boxes would be wrong; correct the "
                    "annotation"
                )
            shown = np.array(rgb_of(opened, (width, height)).resize((width, height), Image.Resampling.BILINEAR))
        return torch.from_numpy(shown).permute(2, 0, 1).float().div_(255.0)


def refuse_repeated(name: str, *parts: BoxedImages) -> None:
    """Refuses an image file that stands twice in the splits: no training image may be a test or a reward image.

    Raises:
        DataError: Names the file.
    """
    seen: set[Path] = set()
    for file in (image for part in parts for image in part.images if isinstance(image, ImageFile)):
        if file.path in seen:
            raise DataError(
                f"data set {name!r}: {file.path} is listed twice, in one split or in both, but training, reward and "
                "test images must be different ones; list each image once"
            )
        seen.add(file.path)


def fitted(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image that is resized to fit a canvas with its proportions.

    Example:
        >>> fitted((480, 640), (160, 208))
        (156, 208)
    """
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(target: BoxTarget, size: tuple[int, int], canvas: tuple[int, int]) -> BoxTarget:
    """A target in pixels of the canvas instead of the image of this size."""
    height, width = fitted(size, canvas)
    factors = torch.tensor([width / size[1], height / size[0]]).repeat(2)
    return {**target, "boxes": target["boxes"] * factors}
