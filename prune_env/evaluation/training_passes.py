"""In which layout and number type training steps are fastest on this machine: measured, not assumed."""

import copy
import math
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prune_env.common.clock import now
from prune_env.config.training import TrainingSection
from prune_env.data import Batch
from prune_env.tasks import Task

ROUNDS = 3
"""Steps of each way of which the fastest counts, after one that does not."""

WORTH = 0.95
"""Another way than float32, contiguous, must take less than this share of its time."""


class Passes(NamedTuple):
    """How a training's passes are computed.

    Attributes:
        layout: ``channels_last`` or ``contiguous``.
        dtype: ``bfloat16`` (autocast) or ``float32``.
    """

    layout: str = "contiguous"
    dtype: str = "float32"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def computing(self, device: torch.device) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")


def fastest_passes(
    model: nn.Module,
    batch: Batch,
    task: Task,
    loss: Callable[[Any], Tensor],
    settings: TrainingSection,
) -> Passes:
    """The fastest of the ways that the settings leave open.

    Args:
        model: The network, on its device; it is left as it is.
        batch: A batch of its images, on that device.
        task: What the network is for.
        loss: Of the network's outputs for that batch.
        settings: Which layout and which number type are given.
    """
    layouts = [settings.layout] if settings.layout else ["contiguous", "channels_last"]
    dtypes = [settings.dtype] if settings.dtype else ["float32", "bfloat16"]
    if batch.images.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        dtypes = [settings.dtype or "float32"]
    ways = [Passes(layout, dtype) for layout, dtype in product(layouts, dtypes)]
    if len(ways) == 1:
        return ways[0]
    networks = [copy.deepcopy(model).to(memory_format=way.memory_format).train() for way in ways]
    seconds = [math.inf] * len(ways)
    for turn in range(ROUNDS + 1):  # in turn, so that a busy moment hits all alike
        for number, (network, way) in enumerate(zip(networks, ways, strict=True)):
            took = _seconds(network, batch, task, loss, way)
            seconds[number] = min(seconds[number], took) if turn else math.inf
    best = min(range(len(ways)), key=lambda number: seconds[number])
    return ways[best] if seconds[best] < WORTH * seconds[0] else ways[0]


def _seconds(model: nn.Module, batch: Batch, task: Task, loss: Callable[[Any], Tensor], way: Passes) -> float:
    batch = Batch(batch.images.contiguous(memory_format=way.memory_format), batch.targets)
    started = now(batch.images.device)
    with way.computing(batch.images.device):
        outputs = task.forward(model, batch)
    loss(outputs).backward()
    return now(batch.images.device) - started
