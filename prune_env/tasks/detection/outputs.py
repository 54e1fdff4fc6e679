"""What a detector says of a batch: losses or detections, and what is known of its candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prune_env.data import Batch
from prune_env.tasks.detection.contract import check_losses, total
from prune_env.tasks.detection.one_stage import OneStage, Seen, kind_of, seeing
from prune_env.walk.tracing import training_code


@dataclass(frozen=True)
class Outputs:
    """The result of one forward pass.

    Attributes:
        model: The detector.
        training: Whether the detector was in training mode.
        answer: What the detector returned: a dict of losses, or a list of detections.
        kind: What is known of the detector from within; None for a detector of which only the contract is known.
        seen: Outputs of the detector's modules.
    """

    model: nn.Module
    training: bool
    answer: Any
    kind: OneStage | None
    seen: Seen

    @property
    def detections(self) -> Sequence[Mapping[str, Tensor]]:
        """The detections of each image, in eval mode."""
        found: Sequence[Mapping[str, Tensor]] = self.answer
        return found

    def candidates(self) -> tuple[Tensor, Tensor] | None:
        """The boxes and scores of all candidates; None if they are not known."""
        return None if self.kind is None else self.kind.candidates(self.model, self.seen)


def run(model: nn.Module, batch: Batch) -> Outputs:
    """Runs a detector once, in its mode."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    kind, targets = kind_of(inner), list(batch.targets)
    with seeing(inner, kind) as seen:
        if kind is None and not model.training:
            answer = model(list(batch.images))
        elif inner is model and kind is not None and len(kind.watched) == 1:
            answer = model(batch.images, targets)  # our own takes a batch as it is, in its layout
        else:
            answer = model(list(batch.images), targets)
    return Outputs(inner, model.training, answer, kind, seen)


def losses_of(outputs: Outputs, batch: Batch) -> Tensor:
    """The loss of each image, [n], in float32; in training mode, each image has the mean loss of the batch.

    A detector of which only the contract is known gives no loss in eval mode. Its code then runs image by image in
    training mode, while the layers of torch and torchvision.ops stay in eval mode, with a fixed seed for what it draws.

    Raises:
        ModelError: If the losses are not the contract's.
    """
    if outputs.training:
        check_losses(outputs.answer)
        return total(outputs.answer).expand(len(batch.images))
    if outputs.kind is not None:
        return outputs.kind.losses(outputs.model, outputs.seen, list(batch.targets))
    each = []
    devices = [batch.images.device] if batch.images.device.type == "cuda" else []
    with training_code(outputs.model):
        for image, target in zip(batch.images, batch.targets, strict=True):
            with torch.random.fork_rng(devices):
                torch.manual_seed(0)
                losses = outputs.model([image], [target])
            check_losses(losses)
            each.append(total(losses))
    return torch.stack(each)
