"""Targets of detection: the boxes and labels of one image, checked, and what was left out on the way."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prune_env.common.errors import DataWarning

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
