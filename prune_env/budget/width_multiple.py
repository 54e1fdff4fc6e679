"""Measures which multiple widths should be rounded to on this machine."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prune_env.budget import Budget
from prune_env.common.errors import BudgetError
from prune_env.common.latency import measure_latency
from prune_env.common.timing import fastest
from prune_env.walk import LayerWalk

MULTIPLES = (1, 4, 8, 16)

NETWORKS = 3
"""Random networks at the budget that are timed for each multiple."""


def fastest_multiple(walk: LayerWalk, budget: Callable[[int], Budget], images: Tensor, seed: int) -> Budget:
    """Returns the budget whose width multiple makes networks at the budget fastest.

    Args:
        walk: The network's walk.
        budget: Returns the budget with widths rounded to a multiple; may raise BudgetError.
        images: The batch to time [N, C, H, W], on the network's device and in its layout.
        seed: Seed of the random widths.
    """
    budgets = {}
    for multiple in MULTIPLES:
        try:
            budgets[multiple] = budget(multiple)
        except BudgetError:
            if multiple == 1:
                raise
    models, costs = {}, {}
    for multiple, one in budgets.items():
        generator = np.random.default_rng(seed)
        for number in range(NETWORKS):
            widths = one.random(generator)
            model = walk.plan(one.names(widths)).apply(walk.model).to(images.device)
            # Compare seconds per spent budget: rounding leaves more of the budget unspent, which makes networks faster.
            costs[f"{multiple} {number}"] = one.cost(widths) / one.limit
            channels_last = images.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            models[f"{multiple} {number}"] = model.to(memory_format=layout)
    latencies = measure_latency(models, images)
    seconds = {
        multiple: float(
            np.mean([latencies[name].median / costs[name] for name in models if name.split()[0] == str(multiple)])
        )
        for multiple in budgets
    }
    return budgets[fastest(seconds, usual=1)]
