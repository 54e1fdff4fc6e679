"""What training minimises: the labels' cross-entropy, and the distance from a teacher's output."""

import torch
import torch.nn.functional as F
from torch import Tensor

from prune_env.config.training import FinetuneSection, TrainingSection


def training_loss(logits: Tensor, labels: Tensor, settings: TrainingSection, teacher: Tensor | None = None) -> Tensor:
    """The loss of a batch, in nats.

    With a teacher it is (1 - w) times the cross-entropy and w T^2 times the divergence of the outputs softened by the
    temperature T, whose gradients are then of one size whatever T is (Hinton, Vinyals and Dean, 2015).

    Args:
        logits: float [N, classes].
        labels: int64 [N].
        settings: Label smoothing; with a teacher, its weight w and the temperature T.
        teacher: The teacher's logits, float [N, classes].
    """
    hard = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
    if teacher is None or not isinstance(settings, FinetuneSection):
        return hard
    warm = settings.temperature
    ours, theirs = (F.log_softmax(scores.float() / warm, dim=1) for scores in (logits, teacher))
    soft = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * warm**2
    return torch.lerp(hard, soft, settings.distillation)
