"""Of how many channels widths should be multiples on this machine: measured, not assumed."""

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
"""Random networks at the budget that each multiple is timed with."""


def fastest_multiple(walk: LayerWalk, budget: Callable[[int], Budget], images: Tensor, seed: int) -> Budget:
    """The budget whose widths are rounded as makes networks that spend it fastest.

    Args:
        walk: The network's walk.
        budget: The budget with widths rounded to a multiple; may raise BudgetError.
        images: The batch to time [N, C, H, W], on the network's device and in its layout.
        seed: For the widths.
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
            # Rounded widths leave more of the budget unspent, which is no reason to round.
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
