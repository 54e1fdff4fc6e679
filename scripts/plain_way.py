"""The plain way to evaluate a plan, to compare with: what a script with Torch-Pruning and nothing else does.

It runs in a process of its own, because how memory is kept (`prune_env.common.memory`) is a process-wide setting.
"""

import pickle
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import torch
from torch import nn

from prune_env.batch_norm.fast_norm import BatchNorm
from prune_env.data import ImageSet
from prune_env.evaluation.measuring import measure
from prune_env.tasks import Task
from prune_env.walk.coupling import prune_plainly

BATCH = 256


class PlainWay:
    """Deep copy, Torch-Pruning, recalibration and reward set: float32, contiguous, unfolded, from memory.

    Args:
        model: The dense network in eval mode.
        reward: The reward set.
        calibration: The calibration set.
        device: Where the network runs.
        task: What the network is for.
    """

    def __init__(
        self, model: nn.Module, reward: ImageSet, calibration: ImageSet, device: torch.device, task: Task
    ) -> None:
        # Bytes go through a pipe; tensors would go through shared memory, of which a container has little.
        given = pickle.dumps((model, reward, calibration, task))
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _take, (given, device, torch.get_num_threads()))

    def seconds(self, removed: Mapping[str, Sequence[int]]) -> float:
        """How long one plan takes.

        Args:
            removed: Output channels to cut, by the name of a convolution or linear layer.
        """
        return self._pool.submit(_timed, dict(removed)).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


_given: tuple[nn.Module, ImageSet, ImageSet, torch.device, Task]


def _take(given: bytes, device: torch.device, threads: int) -> None:
    global _given
    torch.set_num_threads(threads)
    model, reward, calibration, task = pickle.loads(given)  # made by the process above, and nobody else
    _given = model.to(device), reward, calibration, device, task


def _timed(removed: Mapping[str, Sequence[int]]) -> float:
    model, reward, calibration, device, task = _given
    started = time.perf_counter()
    small = prune_plainly(model, calibration.images[:1].to(device), removed)
    norms = [module for module in small.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for images in calibration.images.split(BATCH):
            small(images.to(device))
    small.eval()
    measure(small, reward.to(device).batches(BATCH), task)
    return time.perf_counter() - started
