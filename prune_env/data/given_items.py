"""What a user holds in Python, read by index: batches are checked to be images with labels or boxes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from prune_env.common.errors import DataError
from prune_env.data.source import Indices

Collate: TypeAlias = Callable[[list[Any]], Any]
"""Makes a batch of a data set's items."""

Given: TypeAlias = Dataset[Any] | DataLoader[Any] | Sequence[Any]
"""Images with their targets: a data set, a loader of batches, or a pair of tensors or arrays."""

LARGEST = 4 * 2**30
"""Most bytes of images that are read into memory where a data set has no indices."""

NEEDED = "a torch.utils.data.Dataset or DataLoader of pairs (image, label), or a pair of tensors (images, labels)"

KINDS = (("boxes", torch.float32), ("labels", torch.int64))
"""The parts of a detector's target that are kept, with their types."""

WHOLE = (RandomSampler, SequentialSampler, WeightedRandomSampler)
"""Samplers that only order or repeat the images of a data set."""


@dataclass(frozen=True, eq=False)
class Items:
    """Images with targets, by index.

    Attributes:
        what: Name of the user's argument, for messages.
        dataset: The data set.
        collate: Makes a batch of its items.
        workers: Number of reading processes that the user's loader has.
    """

    what: str
    dataset: Any = field(repr=False)
    collate: Collate = field(repr=False)
    workers: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def name(self) -> str:
        """The name of the data set's class."""
        dataset = self.dataset
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        return type(dataset).__name__

    def batches(
        self, places: Iterable[list[int]], workers: int = 0, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Any]]:
        """Yields images float32 [n, channels, height, width] and targets of each list of indices.

        Args:
            places: The indices of each batch.
            workers: Number of reading processes.
            generator: Seeds the processes; None takes torch's own.

        Raises:
            DataError: If the data set raises an error, or a batch is no pair with images.
        """
        loader = DataLoader(
            self.dataset,
            batch_sampler=places,
            collate_fn=self.collate,
            num_workers=workers,
            generator=generator,
        )
        try:
            for batch in loader:
                yield pair_in(self.what, batch)
        except DataError:
            raise
        except Exception as error:  # the user's data set may raise anything
            raise DataError(
                f"{self.what}: reading images raised {type(error).__name__}: {error}. All images must have one size; "
                f"give {NEEDED}"
            ) from error


def items_of(what: str, given: Any, boxes: bool) -> Items:
    """Reads what was given by index; a loader's sampler chooses the images, its order does not count.

    Args:
        what: Name of the user's argument, for messages.
        given: A data set, a loader, or a pair of tensors.
        boxes: Whether a batch holds its images and targets as lists, unless a loader makes the batches.

    Raises:
        DataError: If it is none of these, holds no image, or has no indices and does not fit into memory.
    """
    items = Items(what, *_by_index(what, given, _listed if boxes else default_collate))
    if not len(items):
        raise DataError(f"{what}: it holds no image; give {NEEDED}")
    return items


def _by_index(what: str, given: Any, collate: Collate) -> tuple[Any, Collate, int]:
    if isinstance(given, DataLoader):
        if isinstance(given.dataset, IterableDataset) or given.batch_sampler is None:
            return _in_memory(what, given), collate, 0
        return _chosen(given), given.collate_fn, given.num_workers
    if isinstance(given, IterableDataset):
        return _in_memory(what, DataLoader(given, 64)), collate, 0
    if isinstance(given, (tuple, list)) and len(given) == 2 and not isinstance(given[0], (tuple, list)):
        images, labels = (torch.as_tensor(values) for values in given)
        if len(images) != len(labels):
            raise DataError(f"{what}: {len(images)} images but {len(labels)} labels given; give one for each image")
        return TensorDataset(images, labels), collate, 0
    if isinstance(given, Sized) and hasattr(given, "__getitem__") and not isinstance(given, (str, Mapping, Tensor)):
        return given, collate, 0
    raise DataError(f"{what}: {type(given).__name__} given; give {NEEDED}")


def _chosen(loader: DataLoader[Any]) -> Any:
    """A loader's data set, without the images that its sampler leaves out."""
    dataset: Any = loader.dataset
    if type(loader.batch_sampler) is BatchSampler and isinstance(loader.sampler, WHOLE):
        return dataset
    indices = {int(index) for batch in loader.batch_sampler or () for index in batch}
    return Subset(dataset, sorted(indices)) if len(indices) < len(dataset) else dataset


def _in_memory(what: str, loader: DataLoader[Any]) -> TensorDataset:
    """All that a loader gives in one pass."""
    images, labels, size = [torch.empty(0)][:0], [torch.empty(0)][:0], 0
    for batch in loader:
        some, targets = pair_in(what, batch)
        size += some.nbytes
        if size > LARGEST:
            raise DataError(
                f"{what}: a data set without indices is read into memory, and its images need more than "
                f"{LARGEST // 2**30} GiB; give a data set with __getitem__ and __len__"
            )
        images.append(some)
        labels.append(torch.as_tensor(targets))
    return TensorDataset(torch.cat(images), torch.cat(labels)) if images else TensorDataset(torch.empty(0))


def pair_in(what: str, batch: Any) -> tuple[Tensor, Any]:
    """Images float32 [n, channels, height, width] and targets of a batch.

    Raises:
        DataError: If the batch is no pair, or its images have another form.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        given = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
        raise DataError(f"{what}: a batch is {given}; a pair (images, targets) is needed, so give {NEEDED}")
    images, targets = batch
    if isinstance(images, (tuple, list)):
        images = torch.stack([torch.as_tensor(image) for image in images])
    images = torch.as_tensor(images)
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            f"{what}: images are {images.dtype} of shape {list(images.shape)}; needed are floating-point numbers of "
            "shape [n, channels, height, width], scaled as in the network's training"
        )
    return images.detach().to("cpu", torch.float32), targets


def labels_in(what: str, targets: Any) -> Indices:
    """Labels int64 [n] of a batch, or of a whole data set.

    Raises:
        DataError: If they are no whole numbers from 0 on, one for each image.
    """
    labels = torch.as_tensor(targets).detach().cpu()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"{what}: labels are {labels.dtype} of shape {list(labels.shape)}; needed are whole numbers of shape [n], "
            "one class for each image (of one-hot labels their argmax(1); no mixed labels)"
        )
    if len(labels) and int(labels.min()) < 0:
        raise DataError(f"{what}: a label is {int(labels.min())}; number the classes from 0")
    return labels.numpy().astype(np.int64)


def boxes_in(what: str, targets: Any) -> list[Mapping[str, Tensor]]:
    """Boxes and labels of each image of a batch.

    Raises:
        DataError: If they are no mappings with ``boxes`` and ``labels``.
    """
    if not all(isinstance(target, Mapping) and {"boxes", "labels"} <= set(target) for target in targets):
        raise DataError(
            f"{what}: a detector's targets are one mapping for each image, with boxes [k, 4] and labels [k]; given is "
            f"a {type(targets).__name__} of {type(next(iter(targets), None)).__name__}"
        )
    return [{key: torch.as_tensor(target[key]).detach().to("cpu", kind) for key, kind in KINDS} for target in targets]


def known_labels(dataset: Any) -> Indices | None:
    """The labels that a data set holds as a whole (``targets``), as in torchvision; None if it holds none."""
    if isinstance(dataset, Subset):
        whole = known_labels(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices, np.int64)]
    held = dataset.tensors[1] if isinstance(dataset, TensorDataset) else getattr(dataset, "targets", None)
    if held is None:
        return None
    try:
        return labels_in("targets", held)
    except (DataError, TypeError, ValueError, RuntimeError):
        return None


def _listed(items: list[Any]) -> tuple[list[Any], list[Any]]:
    """A batch whose images and targets stay lists."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
