"""Classification: one class per image, the class with the highest score of the main head."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.errors import DataError, EvaluationError
from prune_env.common.modes import in_eval_mode
from prune_env.config.sections import DataSection, ModelSection
from prune_env.data import Batch, ImageSource, Targets, load_source
from prune_env.models import build_model
from prune_env.tasks.augmentation import AUGMENTATIONS, DRAWS
from prune_env.tasks.base import Metric, Reduction, register_task
from prune_env.tasks.heads import heads_of
from prune_env.walk.example import Example

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss, as for GoogLeNet in Szegedy et al. (2015)."""

ONE_CLASS = 0.9
"""Share of the images from which on an answer counts as one class for all [our choice]."""

IMAGES_PER_CLASS = 4
"""Least number of images a class to suspect the order of the classes; with few, some order always fits [our choice]."""


class Accuracy:
    """Share of the images whose class is among the k highest scores, in [0, 1].

    Args:
        name: The name, as in `Metric`.
        title: The title, as in `Metric`.
        k: Number of highest scores that count. With k or fewer classes the share is 1.
    """

    format = ".2%"
    counts = True

    def __init__(self, name: str = "accuracy", title: str = "top-1", k: int = 1) -> None:
        self.name = name
        self.title = title
        self.k = k
        self.reset()

    def reset(self) -> None:
        """Removes all batches."""
        self._right = self._images = 0

    def update(self, outputs: Any, batch: Batch) -> None:
        """Adds the scores [n, classes] of a batch."""
        right = self.right(outputs, batch)
        self._right += int(right.sum())
        self._images += len(right)

    def right(self, outputs: Any, batch: Batch) -> Tensor:
        """Which images of a batch count, bool [n]."""
        labels = _labels(batch.targets)
        logits: Tensor = outputs.float()
        if self.k == 1:
            return logits.argmax(dim=1) == labels
        return (logits.topk(min(self.k, logits.shape[1])).indices == labels[:, None]).any(dim=1)

    def compute(self) -> float:
        """Returns the share over all batches since `reset`."""
        return self._right / self._images


@register_task
class Classification:
    """Targets are labels, int64 [n]; outputs are logits, float [n, classes]; the loss is the cross-entropy in nats.

    A network may have several heads (`heads_of`). The main head alone is measured, drawn from and distilled. Auxiliary
    heads are trained, too: the loss adds their cross-entropy times `AUXILIARY_WEIGHT`.
    """

    name = "classification"
    draws = DRAWS

    def load(self, settings: DataSection) -> ImageSource:
        """Opens the data set by name; its targets must be labels."""
        source = load_source(settings.name, settings.path, settings.image_size)
        if not isinstance(source.targets("train"), np.ndarray):
            raise DataError(
                f"data.name: {settings.name} given, but its images have no single label each. Set task.name to "
                "detection if they have boxes, or give data for classification."
            )
        return source

    def stratum(self, target: Any) -> int:
        """Returns the image's class."""
        return int(target)

    def build_model(self, settings: ModelSection, source: ImageSource, image: Tensor) -> nn.Module:
        """Builds the network by name, with one output per class, and tests the network on one image."""
        model = build_model(settings.name, source.classes, source.channels, settings.weights, settings.arguments)
        check_output(model, image, source.classes)
        return model

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Returns the main head's scores [n, classes]; in training mode, the network's own output with all heads."""
        outputs = model(batch.images)
        return outputs if model.training else heads_of(outputs, len(batch.images))[0]

    def check(self, outputs: Any, batch: Batch) -> None:
        """Refuses outputs that are not one score per image and class of the batch."""
        heads_of(outputs, len(batch.images), int(_labels(batch.targets).max()) + 1)

    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> Tensor:
        """Returns the cross-entropy in nats, with auxiliary heads' share; with smoothing, against smoothed labels."""
        main, *auxiliary = (
            F.cross_entropy(scores.float(), _labels(batch.targets), reduction=reduction, label_smoothing=smoothing)
            for scores in heads_of(outputs, len(batch.images))
        )
        return main + AUXILIARY_WEIGHT * torch.stack(auxiliary).sum(0) if auxiliary else main

    def sampled(self, outputs: Any, batch: Batch, generator: torch.Generator) -> Batch:
        """Returns the batch with labels drawn from the softmax of the scores."""
        return Batch(batch.images, sampled_labels(outputs, generator))

    def distillation(self, student: Any, teacher: Any, batch: Batch, temperature: float) -> Tensor:
        """Returns T^2 times the KL divergence of the scores at temperature T (Hinton, Vinyals and Dean, 2015)."""
        mains = (heads_of(outputs, len(batch.images))[0] for outputs in (student, teacher))
        ours, theirs = (F.log_softmax(scores.float() / temperature, dim=1) for scores in mains)
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:
        """Returns the batch with augmented images; no augmentation changes a label."""
        return Batch(AUGMENTATIONS[name](batch.images, draws), batch.targets)

    def chance(self, targets: Targets) -> float:
        """Returns the share of the most frequent class."""
        labels = _labels(targets)
        return int(labels.bincount().max()) / len(labels)

    def suspicions(self, model: nn.Module, batches: Sequence[Batch]) -> list[str]:
        """Returns whether the network gives one class for nearly all images, or the classes in another order."""
        from scipy.optimize import linear_sum_assignment  # here, because the import takes time

        with torch.no_grad():
            given = torch.cat([self.forward(model, batch).argmax(1) for batch in batches]).cpu().numpy()
        targets = torch.cat([_labels(batch.targets) for batch in batches]).cpu()
        labels = targets.numpy()
        counts = np.zeros((int(labels.max()) + 1, max(int(given.max()), int(labels.max())) + 1), np.int64)
        np.add.at(counts, (labels, given), 1)
        found, often = [], int(counts.sum(0).argmax())
        if (share := counts[:, often].sum() / len(labels)) >= ONE_CLASS:
            found.append(
                f"the network gives class {often} for {share:.0%} of the images: its weights or its input are off"
            )
        renamed = counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels)
        # Half the way from chance to all right [our choice].
        if renamed >= (1 + self.chance(targets)) / 2 and len(labels) >= IMAGES_PER_CLASS * len(counts):
            found.append(f"class order: with its classes in another order the network would be right on {renamed:.0%}")
        return found

    def metrics(self) -> tuple[Metric, ...]:
        """Returns top-1 accuracy, which is the quality, and top-5 accuracy."""
        return Accuracy(), Accuracy("top5", "top-5", 5)


def sampled_labels(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Draws labels int64 [N] from the softmax of outputs [N, classes], on the same device.

    Raises:
        EvaluationError: If an output is not a finite number.
    """
    if not outputs.isfinite().all():
        raise EvaluationError("The network's output is not finite. Check the network's weights and the data's scaling.")
    chances = outputs.detach().double().cpu().softmax(1)
    return torch.multinomial(chances, 1, generator=generator).squeeze(1).to(outputs.device)


def check_output(model: nn.Module, image: Tensor, classes: int) -> None:
    """Refuses a network that is not a classifier with this number of classes. Runs the network once, unchanged.

    Args:
        model: The network.
        image: One image [1, C, H, W].
        classes: Number of classes in the data.

    Raises:
        ModelError: If the network does not run on the image, or has no main head with scores [1, classes or more].
    """
    with in_eval_mode(model), torch.no_grad():
        try:
            output = model(image)
        except Exception as error:  # a user's own network may raise anything
            raise Example.given(image).does_not_run(error) from error
    heads_of(output, len(image), classes)


def _labels(targets: Targets) -> Tensor:
    assert isinstance(targets, Tensor)
    return targets
