"""Eval mode for a while, after which every module is in its own mode again."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Puts networks into eval mode; parts that a user froze in eval mode stay so when the others train again."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
