"""Images in memory with their targets, and batches of them.

A target is the reference for a network's output on an image. Only the task knows the content of a target. This module
moves and selects targets in both of their forms in memory: one tensor with a row per image, or one mapping of tensors
per image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Targets: TypeAlias = Tensor | Sequence[Mapping[str, Tensor]]
"""The targets of N images: a tensor [N, ...], or N mappings of tensors."""


class Batch(NamedTuple):
    """The images of one forward pass with their targets.

    Attributes:
        images: float [n, channels, height, width], normalised.
        targets: Targets of the n images.
    """

    images: Tensor
    targets: Targets


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory.

    Attributes:
        images: float32 [N, channels, height, width], normalised.
        targets: Targets of the N images.
    """

    images: Tensor
    targets: Targets

    def __len__(self) -> int:
        return len(self.targets)

    def first(self, count: int) -> "ImageSet":
        """The first ``count`` images, or all images if there are fewer."""
        return ImageSet(self.images[:count], self.targets[:count])

    def at(self, places: Tensor) -> "ImageSet":
        """The images at the indices ``places``, int64 [n], in that order."""
        if isinstance(self.targets, Tensor):
            return ImageSet(self.images[places], self.targets[places])
        return ImageSet(self.images[places], [self.targets[place] for place in places.tolist()])

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images on a device."""
        return ImageSet(self.images.to(device), moved(self.targets, device))

    def batches(self, size: int) -> Iterator[Batch]:
        """The images in order, in batches of ``size``; the last batch may be smaller."""
        for start in range(0, len(self.images), size):
            yield Batch(self.images[start : start + size], self.targets[start : start + size])

    def even_batches(self, most: int) -> Iterator[Batch]:
        """The images in order, in as few batches of at most ``most`` as possible; sizes differ by at most one image."""
        count = -(-len(self) // most)
        size, larger = divmod(len(self), count)
        start = 0
        for number in range(count):
            end = start + size + (number < larger)
            yield Batch(self.images[start:end], self.targets[start:end])
            start = end


def moved(targets: Targets, device: torch.device | str) -> Targets:
    """Targets on a device."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return [{key: value.to(device) for key, value in target.items()} for target in targets]


def tensors_of(targets: Targets) -> Iterator[Tensor]:
    """All tensors of the targets, in a fixed order, so that their digest is reproducible."""
    if isinstance(targets, Tensor):
        yield targets
        return
    for target in targets:
        yield from (target[key] for key in sorted(target))
