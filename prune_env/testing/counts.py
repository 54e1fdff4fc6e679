"""Costs counted on a real network, to compare with costs in closed form."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prune_env.common.modes import in_eval_mode

COUNTED = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm)
"""What convolutions and linear layers compute with."""


def counted_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers, counted by torch while the network runs on the first image."""
    with in_eval_mode(model), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[:1])
    counts = counter.get_flop_counts()["Global"]
    return int(sum(count for operation, count in counts.items() if operation in COUNTED)) // 2


def counted_params(model: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
