"""Measured latency of forward passes. Networks run in turn, so that other load on the machine slows all alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.modes import in_eval_mode
from prune_env.common.timing import time_in_turn


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass: median and quartiles over the rounds."""

    median: float
    q1: float
    q3: float


def measure_latency(
    models: Mapping[str, nn.Module], images: Tensor, rounds: int = 20, warmup: int = 3
) -> dict[str, Latency]:
    """Times each network's forward pass on the same batch.

    Args:
        models: Networks by name. Each runs in eval mode and must be on the device of the images.
        images: One batch [N, C, H, W].
        rounds: Timed rounds. A round is one forward pass of every network.
        warmup: Rounds before the timed rounds, not counted.

    Returns:
        The latency of each network, by name.
    """
    runs = {name: partial(model, images) for name, model in models.items()}
    with in_eval_mode(*models.values()), torch.inference_mode():
        seconds = time_in_turn(runs, images.device, rounds, warmup)
    return {name: Latency(*(float(v) for v in np.percentile(times, (50, 25, 75)))) for name, times in seconds.items()}
