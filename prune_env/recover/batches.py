"""Batches of training images: from memory if all images fit, else read while the network computes."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from prune_env.common.errors import ConfigError
from prune_env.config.training import TrainingSection
from prune_env.data import Batch, ImageSet, ImageSource, Indices, Streaming, load_images, load_targets
from prune_env.recover.workers import Workers
from prune_env.tasks import Task

LARGEST = 4 * 2**30
"""Most bytes of images that are kept in memory."""


def seed_of(*numbers: int) -> int:
    """Derives one seed from several numbers, each 0 or more."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Batches:
    """Training images in random order, augmented anew in every epoch.

    The order of an epoch depends on the seed and the epoch's number alone, and an image's augmentation on these and the
    image. Neither depends on earlier epochs or on the number of processes; images that the data set itself varies
    depend on torch's generator (`Streaming`). Each process makes its share of every batch. Images that do not fill a
    last batch are left out of the epoch.

    Args:
        source: The data set.
        indices: Indices into its training split, at least one.
        settings: Batch size, limited to the number of images, and augmentation.
        seed: Seed of order and augmentation.
        workers: This process among those that share the training.
        task: Task of the network; augments the images.
        largest: Most bytes of images that are kept in memory.
        steps: Batches of an epoch, 1 or more, by as many passes over the images as it takes; None for one pass.

    Attributes:
        seconds: Total time spent waiting for batches.

    Raises:
        ConfigError: If a batch cannot be shared evenly among the processes.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: Indices,
        settings: TrainingSection,
        seed: int,
        workers: Workers,
        task: Task,
        largest: int = LARGEST,
        steps: int | None = None,
    ) -> None:
        self.source = source
        self.task = task
        self.indices = indices
        processes = workers.processes
        self.batch_size = min(settings.batch_size, len(indices) // processes * processes)
        if self.batch_size % processes or not self.batch_size:
            raise ConfigError(
                f"batch_size: {settings.batch_size} given, but {processes} processes cannot split {len(indices)} "
                f"images evenly into such batches; give a multiple of {processes}, and at least {processes} images."
            )
        self.steps = steps or len(indices) // self.batch_size
        self.augmentation = settings.augment or source.augment
        self.seed = seed
        self.workers = workers
        self.seconds = 0.0
        size = 4 * len(indices) * source.channels * source.size[0] * source.size[1]
        self._all: ImageSet | None = None
        self._stream = source if isinstance(source, Streaming) and (source.varies or size > largest) else None
        if size <= largest and self._stream is None:
            self._all = load_images(source, "train", indices).to(workers.device)

    @property
    def repeatable(self) -> bool:
        """Whether seed and epoch alone decide the images; not where the data set itself varies them."""
        return self._stream is None or not self._stream.varies

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields this process's share of each batch of an epoch: images float32 [n, C, H, W] and targets."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, number))
        count = len(self.indices)
        passes = [self._pass(count, generator) for _ in range(-(-self.batch_size * self.steps // count))]
        order, draws = (torch.cat(parts) for parts in zip(*passes, strict=True))
        if self._all is not None:  # one copy for the epoch: a copy per batch would stall a GPU
            order, draws = order.to(self.workers.device), draws.to(self.workers.device)
        share = slice(self.workers.rank, None, self.workers.processes)
        ends = range(0, self.batch_size * self.steps + 1, self.batch_size)
        jobs = ((order[start:end][share], draws[start:end][share]) for start, end in pairwise(ends))
        batches = self._read(jobs)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _read(self, jobs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        if self._stream is not None:
            return self._streamed(self._stream, list(jobs))
        return (self._make(*job) for job in jobs) if self._all is not None else self._prefetch(jobs)

    def _streamed(self, source: Streaming, jobs: list[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Makes the batches of images that the data set reads itself."""
        chosen = [self.indices[places.numpy()] for places, _ in jobs]
        for images, indices, (_, draws) in zip(source.stream(chosen), chosen, jobs, strict=True):
            read = ImageSet(images, load_targets(self.source, "train", indices)).to(self.workers.device)
            yield self._augmented(read, draws)

    def _pass(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All images in random order, int64 [count], and the random numbers of their augmentation, [count, draws]."""
        order = torch.randperm(count, generator=generator)
        # Drawn by image and then ordered, so that a batch of another size changes no image.
        return order, torch.rand(count, self.task.draws, generator=generator)[order]

    def _prefetch(self, jobs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Makes the next batch while the network computes the current one."""
        with ThreadPoolExecutor(1) as pool:
            pending = [pool.submit(self._make, *job) for job in [next(jobs)]]
            for job in jobs:
                pending.append(pool.submit(self._make, *job))
                yield pending.pop(0).result()
            yield pending.pop(0).result()

    def _make(self, places: Tensor, draws: Tensor) -> Batch:
        if self._all is not None:
            chosen = self._all.at(places)
        else:
            chosen = load_images(self.source, "train", self.indices[places.numpy()]).to(self.workers.device)
        return self._augmented(chosen, draws)

    def _augmented(self, chosen: ImageSet, draws: Tensor) -> Batch:
        return self.task.augment(Batch(chosen.images, chosen.targets), draws.to(self.workers.device), self.augmentation)
