"""Measures in which layout and number type training steps are fastest on this machine."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.copying import copied
from prune_env.common.errors import ConfigError
from prune_env.common.gradients import backward
from prune_env.common.timing import fastest, time_in_turn
from prune_env.config.training import TrainingSection
from prune_env.data import Batch
from prune_env.evaluation.execution import ExecutionSettings, Layout, NumberType
from prune_env.tasks import Task

ROUNDS = 3
"""Timed steps of each candidate, after one warm-up step; the fastest counts."""

CHANNEL_BLOCK = 16
"""The channels that oneDNN's 1x1 convolutions compute at once, at most, in float32."""


def fastest_training(
    model: nn.Module,
    batch: Batch,
    task: Task,
    loss: Callable[[Any], Tensor],
    settings: TrainingSection,
) -> ExecutionSettings:
    """Returns the fastest execution settings that the training settings leave open; by default contiguous, float32.

    Args:
        model: The network, on its device; it is not changed.
        batch: A batch of images, on the same device.
        task: The network's task.
        loss: Returns the loss of the network's outputs for the batch.
        settings: The training settings; a layout or number type of None is left open.

    Raises:
        ConfigError: If the settings ask for channels_last in float32 on a CPU, and torch cannot train a convolution of
            the network so.
        ModelError: If the network's outputs do not fit the task, or no gradient reaches a parameter.
    """
    layouts: list[Layout] = [settings.layout] if settings.layout else ["contiguous", "channels_last"]
    dtypes: list[NumberType] = [settings.dtype] if settings.dtype else ["float32", "bfloat16"]
    device = batch.images.device
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        dtypes = [settings.dtype or "float32"]
    candidates = [ExecutionSettings.for_training(layout, dtype) for layout, dtype in product(layouts, dtypes)]
    unsafe = unsafe_in_channels_last(model)
    if unsafe and device.type == "cpu":
        candidates = [given for given in candidates if (given.layout, given.dtype) != ("channels_last", "float32")]
    if not candidates:
        raise ConfigError(
            f"layout: channels_last given, but in float32 torch's training step of {unsafe!r}, a strided 1x1 "
            f"convolution of fewer than {CHANNEL_BLOCK} channels, corrupts memory in this layout. "
            "Use layout=contiguous, or leave the layout open."
        )
    usual = candidates[0]
    if len(candidates) == 1:
        return usual
    steps = {
        candidate: partial(_step, *_laid_out(model, batch, candidate), task, loss, candidate)
        for candidate in candidates
    }
    seconds = time_in_turn(steps, device, ROUNDS)
    return fastest({candidate: min(times) for candidate, times in seconds.items()}, usual)


def unsafe_in_channels_last(model: nn.Module) -> str | None:
    """Returns the first strided 1x1 convolution that reads fewer channels than a block; None if there is none.

    oneDNN's backward pass of such a layer writes past its workspace in this layout (github.com/uxlfoundation/oneDNN,
    issue 6035, in torch 2.15). The result is a crash, a hang or wrong gradients. The blocks have 8 channels with AVX2
    and 16 with AVX-512; the larger block counts everywhere, so that a training resumes on any machine [our choice].
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            and max(module.kernel_size) == 1
            and max(module.stride) > 1
            and module.in_channels // module.groups < CHANNEL_BLOCK
        ):
            return str(name)
    return None


def _laid_out(model: nn.Module, batch: Batch, execution: ExecutionSettings) -> tuple[nn.Module, Batch]:
    """Returns a copy of the network in training mode, and the batch, both in a candidate's layout."""
    network = copied(model).to(memory_format=execution.memory_format).train()
    return network, Batch(batch.images.contiguous(memory_format=execution.memory_format), batch.targets)


def _step(
    model: nn.Module, batch: Batch, task: Task, loss: Callable[[Any], Tensor], execution: ExecutionSettings
) -> None:
    with execution.casting(batch.images.device):
        outputs = task.forward(model, batch)
    backward(loss(outputs))
