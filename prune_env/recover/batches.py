"""Training images batch by batch: from memory where they are few, else read while the network computes."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from prune_env.common.errors import ConfigError
from prune_env.config.training import TrainingSection
from prune_env.data import Batch, ImageSet, ImageSource, Indices, load_images
from prune_env.recover.workers import Workers
from prune_env.tasks import Task

LARGEST = 4 * 2**30
"""Bytes of images that are kept in memory at most."""


def seed_of(*numbers: int) -> int:
    """One seed of several numbers, 0 or more each."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Batches:
    """The images of a training in random order, varied anew each time.

    The order and the variations of an epoch follow from the seed and its number alone, whatever came before and
    however many processes share the work: each makes its part of every batch. What does not fill a last batch is left
    out of the epoch.

    Args:
        source: The data set.
        indices: Images of its training split, at least one.
        settings: The size of a batch, of all images where there are fewer, and how images are varied.
        seed: For order and variations.
        workers: Which process this is among those that share the training.
        task: What the network is for; varies the images.
        largest: Bytes of images that are kept in memory at most.

    Attributes:
        seconds: How long batches were waited for since the first.

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
    ) -> None:
        self.source = source
        self.task = task
        self.indices = indices
        processes = workers.processes
        self.batch_size = min(settings.batch_size, len(indices) // processes * processes)
        if self.batch_size % processes or not self.batch_size:
            raise ConfigError(
                f"batch_size: {settings.batch_size} given, which {processes} processes cannot share evenly among "
                f"{len(indices)} images; give a multiple of {processes}, and at least {processes} images."
            )
        self.augmentation = settings.augment or source.augment
        self.seed = seed
        self.workers = workers
        self.seconds = 0.0
        size = 4 * len(indices) * source.channels * source.size[0] * source.size[1]
        self._all: ImageSet | None = None
        if size <= largest:
            self._all = load_images(source, "train", indices).to(workers.device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.indices) // self.batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """This process's part of each batch of an epoch: images float32 [n, C, H, W] and targets."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, number))
        order = torch.randperm(len(self.indices), generator=generator)
        draws = torch.rand(self.batch_size * len(self), self.task.draws, generator=generator)
        if self._all is not None:  # at once: each copy would hold up a GPU
            order, draws = order.to(self.workers.device), draws.to(self.workers.device)
        share = slice(self.workers.rank, None, self.workers.processes)
        ends = range(0, self.batch_size * len(self) + 1, self.batch_size)
        jobs = ((order[start:end][share], draws[start:end][share]) for start, end in pairwise(ends))
        made = (self._make(*job) for job in jobs) if self._all is not None else self._ahead(jobs)
        while True:
            started = time.perf_counter()
            batch = next(made, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _ahead(self, jobs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Makes the next batch while the network computes this one."""
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(self._make, *job) for job in [next(jobs)]]
            for job in jobs:
                coming.append(pool.submit(self._make, *job))
                yield coming.pop(0).result()
            yield coming.pop(0).result()

    def _make(self, places: Tensor, draws: Tensor) -> Batch:
        if self._all is not None:
            found = self._all.at(places)
        else:
            found = load_images(self.source, "train", self.indices[places.numpy()]).to(self.workers.device)
        return self.task.augment(Batch(found.images, found.targets), draws.to(self.workers.device), self.augmentation)
