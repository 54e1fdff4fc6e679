"""A teacher for a detector: the scores and boxes of its candidates, each at its place."""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-6
"""Distance of a score from 0 and 1, so that its logarithm is finite."""


def candidate_distance(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    """Returns the distance of a student's candidates from a teacher's, a scalar >= 0.

    Candidate i of both stands for the same place of the image. Its distance is T^2 times the divergence of the softened
    scores, summed over the classes (Hinton, Vinyals and Dean, 2015), plus 1 - generalised IoU of the boxes. The mean
    over candidates weighs each by the teacher's highest score there, as the background would drown the objects (Chen
    et al., NeurIPS 2017, weigh classes for this reason) [our choice].

    Args:
        student: Boxes [n, candidates, 4] and scores [n, candidates, classes].
        teacher: As for the student.
        temperature: Divides the logits of both scores.
    """
    from torchvision.ops import generalized_box_iou_loss  # takes a second

    boxes, scores = (values.flatten(0, 1) for values in student)
    their_boxes, their_scores = (values.detach().flatten(0, 1) for values in teacher)
    weights = their_scores.amax(1)
    ours, theirs = _softened(scores, temperature), _softened(their_scores, temperature)
    own = theirs.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(theirs, own, reduction="none")
    divergence = (F.binary_cross_entropy_with_logits(ours, own, reduction="none") - entropy).sum(1)
    # A box without area has no IoU, not even with itself.
    proper = (their_boxes[:, 2:] > their_boxes[:, :2]).all(1)
    apart = torch.where(proper, generalized_box_iou_loss(boxes, their_boxes), 0.0)
    distance = temperature**2 * divergence + apart
    total: Tensor = (weights * distance).sum() / weights.sum().clamp_min(TINY)
    return total


def _softened(scores: Tensor, temperature: float) -> Tensor:
    """The logits of scores, divided by the temperature."""
    return torch.logit(scores, eps=TINY) / temperature
