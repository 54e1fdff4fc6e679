"""Costs counted on a real network, to compare with costs in closed form."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prune_env.common.modes import in_eval_mode, unfused_attention
from prune_env.walk.example import Example


def counted_macs(model: nn.Module, example: Any) -> int:
    """Multiply-adds of all operations, counted by torch in one pass; ``example`` is as for `LayerWalk.trace`."""
    given = example if isinstance(example, Example) else Example.given(example)
    with in_eval_mode(model), unfused_attention(), FlopCounterMode(display=False) as counter, torch.no_grad():
        given.run(model)
    return int(counter.get_total_flops()) // 2


def counted_params(model: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
