"""Contexts of penalties, and networks that are trained with a penalty, for the tests."""

from typing import Any

from practice import CPU, batches_of, network
from torch import nn
from toy import image_set, toy_resnet, toy_walk

from prune_env.config.training import SparsifySection
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover import Trainer, Workers
from prune_env.recover.penalties import PENALTIES, Penalty, PenaltyContext


def context_of(model: nn.Module | None = None, untouched: frozenset[str] = frozenset(), **given: Any) -> PenaltyContext:
    """The context of a network, by default a `toy_resnet`, with settings of ``sparsify``."""
    usual = {"batch_size": 8, "layout": "contiguous", "dtype": "float32", "warmup": 0.0, "weight_decay": 0.0}
    settings = SparsifySection(**{**usual, **given})
    model = model or toy_resnet()
    return PenaltyContext(settings, model, image_set(1).images, untouched, lambda: toy_walk(model))


def trainer_with(name: str, count: int = 40, **given: Any) -> tuple[Penalty, Trainer]:
    """A trainer of a new network with a penalty, not yet run."""
    context = context_of(network(), **{"epochs": 2, **given})
    penalty = PENALTIES.find(name)(context)
    settings = context.settings
    execution = ExecutionSettings.for_training("contiguous", "float32")
    model = penalty.network(context.model)
    batches = batches_of(settings, count)
    return penalty, Trainer(model, batches, settings, 0, Workers(CPU), execution, trainable=penalty)


def trained_with(name: str, **given: Any) -> tuple[Penalty, Trainer]:
    """A trainer of a network with a penalty, after all its epochs."""
    penalty, trainer = trainer_with(name, **given)
    for _ in range(trainer.settings.epochs):
        trainer.run_epoch()
    return penalty, trainer
