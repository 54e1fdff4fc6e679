"""Images that a user holds in Python: a Dataset, a DataLoader or two tensors, as an `ImageSource`.

The images go to the network as they come: their transforms belong to the data set, and nothing is scaled again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prune_env.common.errors import DataError
from prune_env.common.randomness import global_randomness
from prune_env.data.given_items import Given, Items, boxes_in, items_of, known_labels, labels_in
from prune_env.data.source import Indices, Split, SplitTargets

AT_ONCE = 64
"""Images that are read at a time."""

PROBES = 16
"""Images that are read twice, to see whether they vary."""

BATCHES_PER_PROCESS = 8
"""Least number of batches for which a reading process is worth its start [our choice]."""


@dataclass(frozen=True, eq=False)
class GivenImages:
    """The images of one split.

    Attributes:
        items: The images by index.
        targets: The targets of all images.
        size: Channels, height and width of an image.
        varies: Whether an image differs each time that it is read, as with random augmentation.
    """

    items: Items
    targets: SplitTargets = field(repr=False)
    size: tuple[int, ...]
    varies: bool


@dataclass(frozen=True, eq=False)
class GivenSource:
    """An `ImageSource` of images that a user holds in Python.

    Images that vary are loaded in one of their variants, the same for the same indices; `stream` varies them anew.

    Attributes:
        name: The data set's name.
        classes: Number of classes.
        train: The training split.
        test: The test split; None if there is none.
        augment: None of ours: the user's data set augments.

    Raises:
        DataError: If the splits differ in the size of their images.
    """

    name: str
    classes: int
    train: GivenImages
    test: GivenImages | None
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.test is not None and self.test.size != self.train.size:
            ours, theirs = (" x ".join(map(str, size)) for size in (self.test.size, self.train.size))
            raise DataError(
                f"test: images are {ours} (channels, height, width), those of train {theirs}; give images of one size"
            )

    @property
    def channels(self) -> int:
        """Channels of each image."""
        return self.train.size[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each image, in pixels."""
        return self.train.size[1], self.train.size[2]

    @property
    def mean(self) -> tuple[float, ...]:
        """Zeros: the images come as the network takes them."""
        return (0.0,) * self.channels

    @property
    def std(self) -> tuple[float, ...]:
        """Ones, as for `mean`."""
        return (1.0,) * self.channels

    @property
    def varies(self) -> bool:
        """Whether training images differ each time that they are read."""
        return self.train.varies

    def targets(self, split: Split) -> SplitTargets:
        """The target of every image of a split."""
        part = self._of(split)
        return part.targets if part is not None else np.empty(0, np.int64)

    def load(self, split: Split, indices: Indices) -> Tensor:
        """The images at ``indices`` of a split, float32 [n, channels, height, width]."""
        part = self._of(split)
        if part is None or not len(indices):
            return torch.empty(0, *self.train.size)
        return torch.cat([images for images, _ in _in_order(part.items, indices, part.varies)])

    def stream(self, batches: Sequence[Indices]) -> Iterator[Tensor]:
        """Yields the training images of each array of indices; what varies is drawn from torch's global generator."""
        places = (indices.tolist() for indices in batches)
        return (images for images, _ in self.train.items.batches(places, self.train.items.workers))

    def _of(self, split: Split) -> GivenImages | None:
        return self.train if split == "train" else self.test


def given_source(
    train: Given, test: Given | None = None, boxes: bool = False, on_progress: Callable[[str], None] = lambda _: None
) -> GivenSource:
    """Makes a source of what a user holds in Python.

    Args:
        train: The training images.
        test: The test images; None for none.
        boxes: Whether targets are mappings of ``boxes`` and ``labels`` instead of labels.
        on_progress: Receives progress messages.

    Raises:
        DataError: If the images or targets have another form than the library takes; names the argument.

    Example:
        >>> import torch
        >>> source = given_source((torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])))
        >>> source.classes, source.channels, source.size, source.varies
        (3, 3, (8, 8), False)
    """
    training = _images(items_of("train", train, boxes), boxes, on_progress)
    tested = None if test is None else _images(items_of("test", test, boxes), boxes, on_progress)
    highest = max(_highest(part.targets) for part in (training, tested) if part is not None)
    # Labels of classes are numbered from 0, those of boxes from 1.
    return GivenSource(training.items.name, highest if boxes else highest + 1, training, tested)


def _images(items: Items, boxes: bool, on_progress: Callable[[str], None]) -> GivenImages:
    """Reads the targets of all images, and a few images."""
    probes = np.unique(np.linspace(0, len(items) - 1, PROBES).round().astype(np.int64))
    (once, targets), (again, _) = (
        next(items.batches([probes.tolist()], generator=torch.Generator())) for _ in range(2)
    )
    size, varies = tuple(once.shape[1:]), not torch.equal(once, again)
    known = None if boxes else known_labels(items.dataset)
    if known is not None and np.array_equal(known[probes], labels_in(items.what, targets)):
        return GivenImages(items, known, size, varies)
    labels, targets = [], []
    count = 0
    for images, some in _in_order(items, np.arange(len(items)), varies):
        if boxes:
            targets += boxes_in(items.what, some)
        else:
            labels.append(labels_in(items.what, some))
        count += len(images)
        on_progress(f"reading the targets of {items.what}: {count:,} of {len(items):,}")
    return GivenImages(items, targets if boxes else np.concatenate(labels), size, varies)


def _in_order(items: Items, indices: Indices, varies: bool) -> Iterator[tuple[Tensor, object]]:
    """Yields images and targets in batches; images that vary depend on the indices alone."""
    places = [indices[start : start + AT_ONCE].tolist() for start in range(0, len(indices), AT_ONCE)]
    workers = items.workers if len(places) >= BATCHES_PER_PROCESS * items.workers else 0
    generator = torch.Generator().manual_seed(0)
    if not varies:
        yield from items.batches(places, workers, generator)
        return
    with global_randomness(0):
        yield from items.batches(places, workers, generator)


def _highest(targets: SplitTargets) -> int:
    parts = [targets] if isinstance(targets, np.ndarray) else [target["labels"].numpy() for target in targets]
    return max((int(part.max()) for part in parts if len(part)), default=0)
