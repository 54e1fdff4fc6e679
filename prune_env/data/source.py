"""What every data set offers: targets at once, images when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "test"]
Indices = NDArray[np.int64]

SplitTargets: TypeAlias = Indices | Sequence[Mapping[str, Tensor]]
"""What a split holds beside its images: an array with a row for each image, or a mapping of tensors for each."""


class ImageSource(Protocol):
    """Images with targets in a training and a test split, read by index.

    Images come normalised: divided by their largest possible value, less ``mean``, over ``std``, per channel.
    """

    @property
    def name(self) -> str:
        """The data set's name, as in ``data.name``."""

    @property
    def classes(self) -> int:
        """How many classes there are; targets name them by 0..classes-1."""

    @property
    def channels(self) -> int:
        """Channels of each image."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each image, in pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from each channel, in 0..1."""

    @property
    def std(self) -> tuple[float, ...]:
        """What each channel is divided by, in 0..1."""

    @property
    def augment(self) -> str:
        """How its images are usually varied in training: one of `prune_env.tasks.augmentation.AUGMENTATIONS`."""

    def targets(self, split: Split) -> SplitTargets:
        """What the task knows of every image of a split, such as its class (int64 [N]); no image is read."""

    def load(self, split: Split, indices: Indices) -> Tensor:
        """The images at ``indices`` of a split, float32 [n, channels, height, width], in that order."""
