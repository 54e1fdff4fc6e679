"""Modes within a context: eval mode, and attention that runs operation by operation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Puts networks into eval mode; on exit, modules that the user froze in eval mode stay in eval mode."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention layers of torch run operation by operation: their fused operation hides layers and multiply-adds."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
