"""From candidate boxes to detections: the best candidates, without those that overlap a better one.

An export puts this file beside the exported network, so it needs nothing but torch and torchvision. The export's
``decoder.json`` holds the fields of `Rule`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """How candidates become detections.

    Attributes:
        score: Candidates must have a higher score, in [0, 1].
        overlap: Of two boxes of one class whose IoU is higher, only the better one stays, in [0, 1].
        most: Largest number of detections in an image.
        candidates: Largest number of candidates of each level, or of each class.
        by_class: Whether ``candidates`` counts by class, as in SSD, instead of by level.
        levels: Number of boxes of each level of a pyramid; empty for a single level.
        first_label: Label of the first column of the scores.
    """

    score: float = 0.05
    overlap: float = 0.5
    most: int = 100
    candidates: int = 200
    by_class: bool = False
    levels: tuple[int, ...] = ()
    first_label: int = 1


def detections(boxes: Tensor, scores: Tensor, rule: Rule) -> list[dict[str, Tensor]]:
    """Returns the detections of each image, the best first.

    Args:
        boxes: x0, y0, x1, y1 in pixels, float [n, candidates, 4].
        scores: In [0, 1], float [n, candidates, classes].
        rule: How candidates become detections.

    Returns:
        For each image ``boxes`` float [k, 4], ``labels`` int64 [k] and ``scores`` float [k].
    """
    return [_of_image(*one, rule) for one in zip(boxes, scores, strict=True)]


def _of_image(boxes: Tensor, scores: Tensor, rule: Rule) -> dict[str, Tensor]:
    from torchvision.ops import batched_nms  # takes a second

    classes = scores.shape[1]
    parts = scores.split(1, 1) if rule.by_class else scores.split(list(rule.levels or (len(scores),)))
    found: list[tuple[Tensor, Tensor]] = []
    first = 0
    for part in parts:
        flat = part.flatten()
        places = torch.nonzero(flat > rule.score).flatten()
        best, order = flat[places].topk(min(rule.candidates, len(places)))
        places = places[order]
        found.append((best, places * classes + first if rule.by_class else places + first))
        first += 1 if rule.by_class else len(flat)
    kept = torch.cat([best for best, _ in found])
    places = torch.cat([place for _, place in found])
    labels = places % classes + rule.first_label
    chosen = boxes[torch.div(places, classes, rounding_mode="floor")]
    stay = batched_nms(chosen, kept, labels, rule.overlap)[: rule.most]
    return {"boxes": chosen[stay], "labels": labels[stay], "scores": kept[stay]}
