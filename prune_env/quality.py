"""What a finished network is worth on a test set."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.modes import in_eval_mode

TOP = 5


class Quality(NamedTuple):
    """Share of images whose class is the first guess, and among the first five, in [0, 1]; mean loss in nats."""

    top1: float
    top5: float
    loss: float


def measure_quality(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Quality:
    """Runs a network, in eval mode, over labelled batches.

    Args:
        model: The network; with fewer than five classes top-5 is 1.
        batches: Images and labels.
    """
    first = among = count = 0
    loss = 0.0
    with in_eval_mode(model), torch.inference_mode():
        for images, labels in batches:
            logits = model(images).float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            guesses = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
            first += int(guesses[:, 0].sum())
            among += int(guesses.sum())
            count += len(labels)
    return Quality(first / count, among / count, loss / count)
