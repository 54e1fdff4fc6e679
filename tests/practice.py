"""Small images, settings and trainers for the tests of training."""

from typing import Any

import numpy as np
import torch
from torch import nn
from toy import CLASSES, COLOURS, SIDE, TASK, ToyResNet

from prune_env.config.training import FinetuneSection
from prune_env.data import ArraySource, LabelledArrays
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover import Batches, Teacher, Trainer, Workers

CPU = torch.device("cpu")


def noise_source(count: int, augment: str = "none") -> ArraySource:
    """Noise with random labels; the first byte of image i is i."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIDE, SIDE, COLOURS), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    arrays = LabelledArrays.from_arrays(images, generator.integers(0, CLASSES, count), "noise")
    return ArraySource("noise", CLASSES, arrays, arrays, (0.0,) * COLOURS, (1.0,) * COLOURS, 1.0, augment)


def settings_of(**given: Any) -> FinetuneSection:
    """Settings of a short training: small batches, no measured execution, no average, no warm-up, unless given."""
    usual = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "average": 0.0, "layout": "contiguous"}
    return FinetuneSection(**{**usual, "dtype": "float32", **given})


def part_of(rank: int, processes: int) -> Workers:
    """One of several processes; the others do not run."""
    workers = Workers(CPU)
    workers.rank, workers.processes = rank, processes
    return workers


def batches_of(settings: FinetuneSection, count: int = 40, seed: int = 0, **given: Any) -> Batches:
    """Batches of the first images of `noise_source`."""
    given = {"source": noise_source(count), "workers": Workers(CPU), "task": TASK, **given}
    return Batches(indices=np.arange(count), settings=settings, seed=seed, **given)


def network(seed: int = 0, dropout: float = 0.0, colours: int = COLOURS) -> ToyResNet:
    """An untrained network that torch can train in every layout: its strided projection is no 1x1 convolution."""
    torch.manual_seed(seed)
    model = ToyResNet(4, colours=colours, dropout=dropout)
    model.project = nn.Conv2d(4, 8, 2, 2)
    return model


def trainer_of(
    settings: FinetuneSection, model: nn.Module | None = None, teacher: nn.Module | None = None, count: int = 40
) -> Trainer:
    """A trainer without a folder, of a new network by default; its images have the size of `image_set`'s."""
    execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
    taught_by = Teacher(teacher) if teacher is not None else None
    return Trainer(model or network(), batches_of(settings, count), settings, 0, Workers(CPU), execution, taught_by)
