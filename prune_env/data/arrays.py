"""Data sets in memory, as uint8 arrays."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prune_env.common.errors import DataError
from prune_env.data.preprocessing import Preprocessing
from prune_env.data.source import Indices, Split

MOST_CLASSES = 100_000
"""Classes of a data set at most [our choice]: a larger label is an id rather than the number of a class."""


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """The images and labels of one split.

    Attributes:
        images: uint8 [N, height, width, channels].
        labels: int64 [N].
    """

    images: NDArray[np.uint8] = field(repr=False)
    labels: Indices = field(repr=False)

    @classmethod
    def from_arrays(cls, images: NDArray[np.generic], labels: NDArray[np.generic], what: str) -> "LabelledArrays":
        """Check and reshape the arrays of a file.

        Args:
            images: uint8 [N, height, width] or [N, height, width, channels].
            labels: Integers [N] or [N, 1].
            what: Name of the arrays in error messages.

        Returns:
            The checked arrays; the images are not copied.

        Raises:
            DataError: If an array has another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise DataError(
                f"{what}: images must be uint8 of shape [N, height, width] or [N, height, width, channels], "
                f"given {images.dtype} {images.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
            raise DataError(
                f"{what}: labels must be integers, one for each of the {len(images)} images, "
                f"given {labels.dtype} {labels.shape}"
            )
        if int(labels.max()) >= MOST_CLASSES:
            raise DataError(
                f"{what}: the largest label is {int(labels.max())}; labels must number the classes from 0, and at most "
                f"{MOST_CLASSES:,} classes are allowed"
            )
        if images.ndim == 3:
            images = images[..., np.newaxis]
        return cls(images.astype(np.uint8, copy=False), labels.reshape(-1).astype(np.int64))


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An `ImageSource` in memory: images stay uint8 and become float32 in `load`.

    Attributes:
        name: The data set's name.
        classes: Number of classes.
        train: The training split.
        test: The test split.
        mean: Subtracted from each channel, in 0..1.
        std: Divides each channel, in 0..1.
        maximum: The byte value of intensity 1.0.
        augment: The usual augmentation in training.

    Raises:
        DataError: If the splits differ in image shape, the images have other channels than ``mean``, or a label is
            not in 0..classes-1.
    """

    name: str
    classes: int
    train: LabelledArrays
    test: LabelledArrays
    mean: tuple[float, ...]
    std: tuple[float, ...]
    maximum: float = 255.0
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(
                f"data set {self.name!r}: training images have shape {self.train.images.shape[1:]}, "
                f"test images {self.test.images.shape[1:]}; they must be the same"
            )
        if self.channels != len(self.mean):
            raise DataError(f"data set {self.name!r}: images have {self.channels} channels instead of {len(self.mean)}")
        for split in (self.train, self.test):
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if lowest < 0 or highest >= self.classes:
                raise DataError(
                    f"data set {self.name!r}: labels run from {lowest} to {highest}; allowed are 0..{self.classes - 1}"
                )

    @property
    def channels(self) -> int:
        """Channels of each image."""
        return int(self.train.images.shape[3])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each image, in pixels."""
        return int(self.train.images.shape[1]), int(self.train.images.shape[2])

    def adjusted(self, wanted: Preprocessing) -> "ArraySource":
        """The same images with another mean and std; None leaves a value as it is."""
        return replace(self, mean=wanted.mean or self.mean, std=wanted.std or self.std)

    def preprocessing(self) -> Preprocessing:
        """The scale of the loaded images."""
        return Preprocessing(mean=self.mean, std=self.std)

    def targets(self, split: Split) -> Indices:
        """The class of every image of a split, int64 [N]."""
        return self._arrays(split).labels

    def load(self, split: Split, indices: Indices) -> Tensor:
        """The images at ``indices`` of a split, normalised, float32 [n, channels, height, width]."""
        chosen = torch.from_numpy(self._arrays(split).images[indices]).permute(0, 3, 1, 2)
        images = chosen.to(torch.float32, memory_format=torch.contiguous_format)
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return images.div_(self.maximum).sub_(mean).div_(std)

    def _arrays(self, split: Split) -> LabelledArrays:
        return self.train if split == "train" else self.test
