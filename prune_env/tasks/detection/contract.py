"""The contract of detectors, which is torchvision's, and the refusal of anything else.

In training mode, images and targets give a dict of losses. In eval mode, images give a dict for each image: ``boxes``
[k, 4] as x0, y0, x1, y1 in pixels, ``labels`` [k] from 1, ``scores`` [k]. Images are a list of [channels, height,
width] in 0..1.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from prune_env.common.errors import ModelError

PARTS = ("boxes", "labels", "scores")


def check_detections(outputs: Any, count: int) -> None:
    """Refuses what a detector in eval mode must not return.

    Args:
        outputs: The detector's output.
        count: Number of images.

    Raises:
        ModelError: Says what is needed and what came.
    """
    need = (
        f"in eval mode, a detector must return a list of {count} dicts, one for each image, with 'boxes' [k, 4], "
        "'labels' [k] and 'scores' [k]"
    )
    if not isinstance(outputs, (list, tuple)) or len(outputs) != count:
        _refuse(need, outputs)
    for number, found in enumerate(outputs):
        if not isinstance(found, Mapping) or not all(isinstance(found.get(part), Tensor) for part in PARTS):
            _refuse(need, found, number)
        size = found["boxes"].shape[:1]
        shapes = {"boxes": (*size, 4), "labels": size, "scores": size}
        if any(tuple(found[part].shape) != tuple(shape) for part, shape in shapes.items()):
            _refuse(need, found, number)
        if found["labels"].is_floating_point() or not found["scores"].is_floating_point():
            _refuse(f"{need}; labels are whole numbers, scores are not", found, number)


def check_losses(outputs: Any) -> None:
    """Refuses what a detector in training mode must not return.

    Raises:
        ModelError: Says what is needed and what came.
    """
    need = "in training mode, a detector must return a dict of losses, each a number (a tensor without axes)"
    if not isinstance(outputs, Mapping) or not outputs:
        _refuse(need, outputs)
    if not all(isinstance(loss, Tensor) and loss.numel() == 1 for loss in outputs.values()):
        _refuse(need, outputs)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of a detector's losses, a scalar in float32."""
    return torch.stack([loss.float().reshape(()) for loss in losses.values()]).sum()


def _refuse(need: str, outputs: Any, number: int | None = None) -> NoReturn:
    place = "" if number is None else f" for image {number}"
    raise ModelError(
        f"The network is no detector by torchvision's contract: {need}; it returned {_described(outputs)}{place}. Give "
        "a detector, or make yours return this; task.name=classification is for classifiers."
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a dict ({', '.join(f'{key}: {_described(item)}' for key, item in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}" + (f", first {_described(value[0])}" if value else "")
    return f"a {type(value).__name__}"
