"""The task of detection."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prune_env.common.errors import ConfigError, DataError
from prune_env.common.modes import in_eval_mode
from prune_env.config.sections import DataSection, ModelSection
from prune_env.data import Batch, BoxTarget, ImageSource, Split, check_box_targets, load_source
from prune_env.models import build_detector, check_pretrained_names
from prune_env.tasks.base import Core, Metric, Reduction, register_task
from prune_env.tasks.detection.augmentation import DRAWS, augmented
from prune_env.tasks.detection.average_precision import THRESHOLDS, AveragePrecision
from prune_env.tasks.detection.contract import check_detections, check_losses
from prune_env.tasks.detection.core import before_suppression
from prune_env.tasks.detection.distillation import candidate_distance
from prune_env.tasks.detection.drawing import drawn
from prune_env.tasks.detection.outputs import Outputs, losses_of, run
from prune_env.walk.example import Example
from prune_env.walk.tracing import training_code


@register_task
class Detection:
    """Boxes, labels and scores of the objects in an image, by torchvision's interface of detectors.

    A target has ``boxes`` [k, 4], x0, y0, x1, y1 in pixels, and ``labels`` [k] from 1. Outputs are `Outputs`. The
    quality is the mean average precision at an IoU of 0.5.
    """

    name = "detection"
    draws = DRAWS

    def load(self, settings: DataSection) -> ImageSource:
        """Opens the data set by name; its targets must be boxes."""
        source = load_source(settings.name, settings.path, settings.image_size)
        training, _ = (_boxed(source, settings.name, split) for split in get_args(Split))
        if not any(len(target["labels"]) for target in training):
            raise DataError(
                f"data set {settings.name!r}: no training image holds an object, so there is nothing to learn or to "
                "measure; give annotations with boxes"
            )
        return source

    def stratum(self, target: Any) -> frozenset[int]:
        """Returns the classes that are present in the image."""
        return frozenset(target["labels"].tolist())

    def build_model(self, settings: ModelSection, source: ImageSource, image: Tensor) -> nn.Module:
        """Builds the detector by name, and tests its outputs in both modes on one image."""
        check_pretrained_names(settings.name, settings.weights, getattr(source, "names", ()))
        model = build_detector(settings.name, source.classes, source.channels, settings.weights, settings.arguments)
        _check_contract(model, image)
        return model

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Runs the detector on a list of images; in training mode with their targets."""
        return run(model, batch)

    def check(self, outputs: Any, batch: Batch) -> None:
        """Refuses outputs that are not those of a detector."""
        if outputs.training:
            check_losses(outputs.answer)
        else:
            check_detections(outputs.answer, len(batch.images))

    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> Tensor:
        """Returns the detector's own loss: the sum of its parts."""
        if smoothing:
            raise ConfigError(f"label_smoothing: {smoothing} given, but detection has none. Give 0.")
        each = losses_of(outputs, batch)
        return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()

    def sampled(self, outputs: Any, batch: Batch, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Refuses: a detector's boxes are no probability distribution."""
        raise ConfigError(
            "criterion.name: this criterion draws targets from the network's prediction, but a detector predicts no "
            "distribution of boxes. Give a criterion that uses the given targets, such as taylor or consumer_error."
        )

    def distillation(self, student: Any, teacher: Any, batch: Batch, temperature: float) -> Tensor:  # noqa: ARG002
        """Returns the distance of scores and boxes of all candidates (`candidate_distance`)."""
        ours, theirs = student.candidates(), teacher.candidates()
        if ours is None or theirs is None or ours[0].shape != theirs[0].shape:
            raise ConfigError(
                "distillation: a teacher needs detectors whose candidate boxes are known and stand for the same places "
                "(centre_detector, SSD, RetinaNet and FCOS of torchvision, at one image size). Give distillation=0."
            )
        return candidate_distance(ours, theirs, temperature)

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:
        """Returns the batch with augmented images; boxes move along."""
        return augmented(batch, draws, name)

    def metrics(self) -> tuple[Metric, ...]:
        """Returns mAP at an IoU of 0.5, which is the quality, and COCO's mAP at 0.5 to 0.95."""
        return AveragePrecision(), AveragePrecision("map", "mAP", THRESHOLDS)

    def core(self, model: nn.Module, images: Tensor) -> Core:
        """Returns the part of a one-stage detector before the suppression of overlapping boxes."""
        return before_suppression(model, images)

    def pictures(self, source: ImageSource, batch: Batch, outputs: Any) -> list[NDArray[np.uint8]]:
        """Returns each image with the boxes of its objects and detections."""
        names = getattr(source, "names", ())
        mean, std = (torch.tensor(values)[:, None, None].to(batch.images) for values in (source.mean, source.std))
        return [
            drawn(image * std + mean, target, found, names)
            for image, target, found in zip(batch.images, batch.targets, outputs.detections, strict=True)
        ]


def _boxed(source: ImageSource, name: str, split: Split) -> Sequence[BoxTarget]:
    """The targets of a split, which must have images, boxes and labels."""
    targets = source.targets(split)
    if not len(targets):
        if split == "test":
            return ()
        raise DataError(f"data set {name!r}: the {split} split has no images, so there is nothing to search on")
    if isinstance(targets, np.ndarray) or not isinstance(targets[0], Mapping):
        raise DataError(
            f"data.name: {name} given, but its images have no boxes. Give scattered_digits, voc, coco or your own data "
            "set with boxes and labels; or set task.name to classification."
        )
    check_box_targets(targets, source.classes, source.size, f"data set {name!r}, {split} split")
    return targets


def _check_contract(model: nn.Module, image: Tensor) -> None:
    """Refuses a network that is no detector. Runs it once in each mode; layers of torch stay in eval mode.

    Args:
        model: The network, unchanged.
        image: One image [1, C, H, W].
    """
    height, width = image.shape[2:]
    box = torch.tensor([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]])
    target = {"boxes": box, "labels": torch.ones(1, dtype=torch.int64)}
    with in_eval_mode(model), torch.no_grad(), torch.random.fork_rng([]):
        try:
            found = model(list(image))
            check_detections(found, 1)
            with training_code(model):
                losses = model(list(image), [target])
        except (ConfigError, DataError):
            raise
        except Exception as error:  # a user's own network may raise anything
            if isinstance(error, ValueError) and "torchvision's contract" in str(error):
                raise
            raise Example.given(image).does_not_run(error) from error
    check_losses(losses)
