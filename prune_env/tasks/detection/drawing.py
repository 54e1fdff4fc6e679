"""Pictures of images with their objects and detections."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_SIDE = 288
"""Least shorter side of a picture, in pixels, so that labels can be read."""

SHOWN = 0.4
"""Detections with a lower score are not drawn [our choice]."""

OBJECT = (255, 255, 255)
"""Colour of the boxes of objects, which are thin."""

COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178))
"""Colours of detections by label, in turn: those of Okabe and Ito (2008), which colour-blind people tell apart."""


def drawn(
    image: Tensor, target: Mapping[str, Tensor], found: Mapping[str, Tensor], names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draws an image with the boxes of its objects (thin, white) and of its detections (coloured, with name and score).

    Args:
        image: In 0..1, float [channels, height, width]; of 3 channels or more, the first 3 are shown, else the first.
        target: The boxes and labels of the objects.
        found: The boxes, labels and scores of the detections.
        names: Names of the classes from label 1; empty for numbers.

    Returns:
        uint8 [height, width, 3], enlarged by a whole number if the image is small.
    """
    from torchvision.utils import draw_bounding_boxes

    times = max(1, -(-LEAST_SIDE // min(image.shape[1:])))
    pixels = (255.0 * image.float().clamp(0.0, 1.0)).round().to(torch.uint8).cpu()
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    pixels = pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)
    # A user's own detector may return boxes without area, which cannot be drawn.
    shown = (found["scores"].float() >= SHOWN) & (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
    boxes, labels, scores = (found[key][shown].cpu() for key in ("boxes", "labels", "scores"))
    texts = [
        f"{_name(label, names)}: {score:.2f}" for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
    ]
    colours = [COLOURS[label % len(COLOURS)] for label in labels.tolist()]
    limits = torch.tensor([pixels.shape[2], pixels.shape[1]] * 2) - 1.0
    enlarged = ((given.float().cpu() * times).clamp_min(0.0).minimum(limits) for given in (target["boxes"], boxes))
    objects, found_boxes = enlarged
    if len(objects):
        pixels = draw_bounding_boxes(pixels, objects, colors=OBJECT)
    if len(found_boxes):
        # Names on filled ground can be read where boxes overlap.
        pixels = draw_bounding_boxes(
            pixels, found_boxes, texts, colours, width=2, label_colors="black", fill_labels=True
        )
    return pixels.permute(1, 2, 0).contiguous().numpy()


def _name(label: int, names: Sequence[str]) -> str:
    return names[label - 1] if 1 <= label <= len(names) else str(label)
