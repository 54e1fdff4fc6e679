"""Protocol of a data set: all targets at once, images on request."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "test"]
Indices = NDArray[np.int64]

ImageSize: TypeAlias = int | tuple[int, int]
"""Height and width of all images in pixels: one number for both, or (height, width)."""

SplitTargets: TypeAlias = Indices | Sequence[Mapping[str, Tensor]]
"""The targets of a split: an array with a row per image, or a mapping of tensors per image."""


class ImageSource(Protocol):
    """Images with targets in a training and a test split, read by index.

    Images are normalised per channel: (image / largest possible value - ``mean``) / ``std``. All loaded images have one
    size, so that a set is one tensor: a source of images of different sizes fits each of them into that size
    [our choice].
    """

    @property
    def name(self) -> str:
        """The data set's name, as in ``data.name``."""

    @property
    def classes(self) -> int:
        """Number of classes; targets number them 0..classes-1."""

    @property
    def channels(self) -> int:
        """Channels of each image."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each image, in pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean that is subtracted from each channel, in 0..1."""

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation by which each channel is divided, in 0..1."""

    @property
    def augment(self) -> str:
        """The usual augmentation in training: one of `prune_env.tasks.augmentation.AUGMENTATIONS`."""

    def targets(self, split: Split) -> SplitTargets:
        """The target of every image of a split, such as its class (int64 [N]); reads no image."""

    def load(self, split: Split, indices: Indices) -> Tensor:
        """The images at ``indices`` of a split, float32 [n, channels, height, width], in that order."""


@runtime_checkable
class Streaming(Protocol):
    """A data set that reads a training's batches itself, for example with augmentation and processes of its own."""

    @property
    def varies(self) -> bool:
        """Whether training images differ each time that they are read, so that a training must not keep them."""

    def stream(self, batches: Sequence[Indices]) -> Iterator[Tensor]:
        """Yields the training images of each array of indices, float32 [n, channels, height, width]."""
