"""Targets of detection: the boxes and labels of one image, checked, and what was left out on the way."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prune_env.common.errors import DataError, DataWarning

BoxTarget = Mapping[str, Tensor]
"""``boxes``: float32 [k, 4], x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1; ``labels``: int64 [k], from 1."""

LEAST = 1e-6
"""Least share of the image's side that a box must span [our choice]; in float32, thinner boxes may lose their area."""


@dataclass
class LeftOut:
    """What was left out of a data set, by reason.

    Attributes:
        degenerate: Boxes without width or height, or with a coordinate that is not a finite number.
        outside: Boxes that lie outside of their image.
        crowds: COCO's boxes around crowds, which stand for an unknown number of objects.
    """

    degenerate: int = 0
    outside: int = 0
    crowds: int = 0

    def tell(self, name: str) -> None:
        """Warns of what was left out, if anything was, with a `DataWarning`."""
        reasons = {
            "without width or height": self.degenerate,
            "outside of their image": self.outside,
            "around crowds": self.crowds,
        }
        told = [f"{count} {reason}" for reason, count in reasons.items() if count]
        if told:
            warnings.warn(f"data set {name!r}: boxes were left out: {', '.join(told)}", DataWarning, stacklevel=2)


def box_target(
    boxes: Sequence[Sequence[float]] | NDArray[np.int64],
    labels: Sequence[int] | NDArray[np.int64],
    size: tuple[float, float],
    left_out: LeftOut,
) -> BoxTarget:
    """Makes the target of an image; clips boxes to the image, and leaves out boxes that show nothing.

    Args:
        boxes: x0, y0, x1, y1 of each box, in pixels.
        labels: The label of each box, from 1.
        size: Height and width of the image.
        left_out: Counts what is left out.

    Returns:
        The target; an image without boxes has boxes [0, 4].
    """
    given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    numbers = np.asarray(labels, dtype=np.int64)
    height, width = size
    least = LEAST * np.array([width, height])
    with np.errstate(invalid="ignore"):
        proper = np.isfinite(given).all(axis=1) & (given[:, 2:] - given[:, :2] > least).all(axis=1)
    given, numbers = given[proper], numbers[proper]
    clipped = np.clip(given, 0.0, [width, height, width, height])
    inside = (clipped[:, 2:] - clipped[:, :2] > least).all(axis=1)
    left_out.degenerate += int((~proper).sum())
    left_out.outside += int((~inside).sum())
    return {
        "boxes": torch.from_numpy(clipped[inside].astype(np.float32)),
        "labels": torch.from_numpy(numbers[inside]),
    }


def check_box_targets(targets: Sequence[BoxTarget], classes: int, size: tuple[int, int], place: str) -> None:
    """Refuses targets that no detector can learn from.

    Args:
        targets: The target of every image.
        classes: Number of classes; labels are 1 to this number.
        size: Height and width of the images.
        place: The data set and the split, for the message.

    Raises:
        DataError: Names the first image and its target.
    """
    for number, target in enumerate(targets):
        problem = _problem(target, classes, size)
        if problem is not None:
            raise DataError(
                f"{place}: image {number}: {problem}. Correct the data set; prune_env.data.box_target makes such "
                "targets and leaves out boxes that show nothing."
            )


def _problem(target: BoxTarget, classes: int, size: tuple[int, int]) -> str | None:
    """What is wrong with a target, in words; None if nothing is."""
    boxes, labels = target.get("boxes"), target.get("labels")
    if not isinstance(boxes, Tensor) or not isinstance(labels, Tensor):
        return f"a target needs the tensors 'boxes' and 'labels', given {', '.join(target) or 'nothing'}"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        return f"boxes must be floats [k, 4], given {list(boxes.shape)} of {boxes.dtype}"
    if labels.dtype != torch.int64 or labels.shape != boxes.shape[:1]:
        return f"labels must be int64 [{len(boxes)}], one for each box, given {list(labels.shape)} of {labels.dtype}"
    if not len(boxes):
        return None
    least, most = int(labels.min()), int(labels.max())
    if least < 1 or most > classes:
        wrong = least if least < 1 else most
        return f"labels must be 1 to {classes} (0 is a detector's background), given {wrong}"
    height, width = size
    x0, y0, x1, y1 = boxes.unbind(1)
    shown = boxes.isfinite().all(1) & (x0 < x1) & (y0 < y1) & (x1 > 0) & (y1 > 0) & (x0 < width) & (y0 < height)
    if not bool(shown.all()):
        wrong_box = boxes[int(shown.int().argmin())].tolist()
        return f"a box must have x0 < x1, y0 < y1 in pixels and lie in the {height}x{width} image, given {wrong_box}"
    return None
