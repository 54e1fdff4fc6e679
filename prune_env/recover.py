"""Training: a network from scratch on the images that no search uses."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from prune_env.config_sections import FidelitySection, PretrainSection
from prune_env.data import Splits, load_images
from prune_env.errors import DataError, EvaluationError


def train(
    model: nn.Module,
    splits: Splits,
    settings: PretrainSection,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Trains a network in place with SGD (Nesterov momentum 0.9, one-cycle learning rate).

    Args:
        model: The network.
        splits: The data; only ``train_indices`` are used.
        settings: Epochs, batch size, learning rate and weight decay.
        seed: For the order of the images.
        device: Where to train; the network comes back to the CPU.
        on_epoch: Called with the epoch's number, from 1, and its mean loss.

    Raises:
        DataError: If the other sets leave no image to train on.
        EvaluationError: If the loss is not finite.
    """
    section = "fidelity" if isinstance(settings, FidelitySection) else "pretrain"
    if len(splits.train_indices) == 0:
        raise DataError(
            f"{section}.epochs: {settings.epochs} given, but no image is left to train on. Lower data.reward_images "
            "or data.calibration_images, or give model.weights."
        )
    data = load_images(splits.source, "train", splits.train_indices)
    images, labels = data.images.to(device), data.labels.to(device)
    model.to(device).train()
    steps = -(-len(data) // settings.batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(data), generator=generator).to(device).split(settings.batch_size):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        if not torch.isfinite(torch.tensor(total)):
            raise EvaluationError(
                f"Training diverged in epoch {epoch}: the loss is {total}. "
                f"Lower {section}.learning_rate (given {settings.learning_rate})."
            )
        if on_epoch is not None:
            on_epoch(epoch, total / len(data))
    model.to("cpu").eval()
