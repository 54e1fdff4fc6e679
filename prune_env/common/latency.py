"""Measured latency: seconds of a forward pass, networks taken in turn so that a busy machine hits all alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.clock import now
from prune_env.common.modes import in_eval_mode


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
        models: Networks by name; each is run in eval mode, where it is.
        images: One batch [N, C, H, W].
        rounds: Timed passes of each network; one of each makes a round.
        warmup: Rounds before that are not counted.

    Returns:
        Latency by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with in_eval_mode(*models.values()), torch.inference_mode():
        for turn in range(warmup + rounds):
            for name, model in models.items():
                started = now(images.device)
                model(images)
                took = now(images.device) - started
                if turn >= warmup:
                    seconds[name].append(took)
    return {name: Latency(*(float(v) for v in np.percentile(times, (50, 25, 75)))) for name, times in seconds.items()}
