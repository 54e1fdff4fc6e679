"""A training without a folder: for a network that is trained on the spot, and for comparisons."""

from collections.abc import Callable

import torch
from torch import nn

from prune_env.common.errors import DataError
from prune_env.config.training import PretrainSection, TrainingSection
from prune_env.data import Splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover.batches import Batches
from prune_env.recover.trainer import Trainer
from prune_env.recover.workers import Workers
from prune_env.tasks import Task


def train_network(
    model: nn.Module,
    splits: Splits,
    settings: TrainingSection,
    seed: int,
    device: torch.device,
    task: Task,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Trains a network in place, without checkpoints, on the images that no other set holds.

    Args:
        model: The network; it ends in eval mode on the CPU.
        splits: The data; only ``train_indices`` are used.
        settings: Settings of the training.
        seed: Seed of the image order, the augmentation and the network's random layers.
        device: Device of the training.
        task: Task of the network.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        DataError: If the other sets leave no image to train on.
        EvaluationError: If the loss is not finite.
        ModelError: If no parameter of the network can be trained.
    """
    if len(splits.train_indices) == 0:
        section = "pretrain" if isinstance(settings, PretrainSection) else "fidelity"
        raise DataError(
            f"{section}.epochs: {settings.epochs} given, but no image is left to train on. Lower data.reward_images "
            "or data.calibration_images, or give model.weights."
        )
    workers = Workers(device)
    batches = Batches(splits.source, splits.train_indices, settings, seed, workers, task)
    execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
    trainer = Trainer(model, batches, settings, seed, workers, execution)
    for _ in range(settings.epochs):
        epoch = trainer.run_epoch()
        if on_epoch is not None:
            on_epoch(epoch.number, epoch.loss)
    if trainer.result is not model:
        model.load_state_dict(trainer.result.state_dict())
    model.cpu().to(memory_format=torch.contiguous_format).eval()
