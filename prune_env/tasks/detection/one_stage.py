"""One-stage detectors seen from within: what they say of every candidate box before any is suppressed.

The detector runs as it is. Hooks read the output of its head, from which follow the loss of each image in eval mode,
the candidates for a teacher, and the part that can be exported. Two-stage detectors and a user's own are not known from
within.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.hooks import watching
from prune_env.models.centre_detector import CentreDetector
from prune_env.models.suppression import Rule

Seen = dict[str, Any]
"""Outputs of the watched modules of one forward pass, by name."""

Targets = Sequence[Mapping[str, Tensor]]


class OneStage(ABC):
    """A kind of one-stage detectors.

    Attributes:
        watched: Modules whose outputs are read.
    """

    watched: tuple[str, ...]

    @abstractmethod
    def losses(self, model: Any, seen: Seen, targets: Targets) -> Tensor:
        """Returns the loss of each image, >= 0, float32 [n]."""

    @abstractmethod
    def candidates(self, model: Any, seen: Seen) -> tuple[Tensor, Tensor]:
        """Returns boxes [n, candidates, 4], in the pixels that the head sees, and scores [n, candidates, classes]."""

    @abstractmethod
    def rule(self, model: Any, seen: Seen) -> Rule:
        """Returns how the detector makes detections of its candidates."""


class _Centre(OneStage):
    """`CentreDetector`."""

    watched = ("head",)

    def losses(self, model: Any, seen: Seen, targets: Targets) -> Tensor:
        scores, boxes = model.losses(seen["head"], targets)
        return scores + boxes  # type: ignore[no-any-return]

    def candidates(self, model: Any, seen: Seen) -> tuple[Tensor, Tensor]:
        boxes, scores = model.candidates(seen["head"])
        return boxes, scores

    def rule(self, model: Any, seen: Seen) -> Rule:  # noqa: ARG002
        rule: Rule = model.rule
        return rule


class _Anchored(OneStage):
    """A detector of torchvision with a head and anchors."""

    watched = ("transform", "head", "anchor_generator")

    def losses(self, model: Any, seen: Seen, targets: Targets) -> Tensor:  # noqa: ARG002
        _, resized = seen["transform"]
        each = []
        for place, target in enumerate(resized):
            head = {key: value[place : place + 1] for key, value in seen["head"].items()}
            losses = self._losses(model, target, head, seen["anchor_generator"][place], seen)
            each.append(torch.stack([loss.float() for loss in losses.values()]).sum())
        return torch.stack(each)

    def _losses(self, model: Any, target: Any, head: Any, anchors: Tensor, seen: Seen) -> Mapping[str, Tensor]:
        """The losses of one image, by the detector's own code."""
        del seen
        losses: Mapping[str, Tensor] = model.compute_loss([target], head, [anchors])
        return losses

    def candidates(self, model: Any, seen: Seen) -> tuple[Tensor, Tensor]:
        distances, anchors = seen["head"]["bbox_regression"].float(), seen["anchor_generator"]
        anchors = anchors if isinstance(anchors, Tensor) else torch.stack(anchors)
        # All images at once: an exported file must not depend on their number.
        boxes = self._decoded(model, distances.flatten(0, 1), anchors.flatten(0, 1))
        return boxes.unflatten(0, distances.shape[:2]), self._scores(seen["head"])

    def _decoded(self, model: Any, distances: Tensor, anchors: Tensor) -> Tensor:
        boxes: Tensor = model.box_coder.decode_single(distances, anchors)
        return boxes

    def _scores(self, head: Mapping[str, Tensor]) -> Tensor:
        return head["cls_logits"].float().sigmoid()

    def rule(self, model: Any, seen: Seen) -> Rule:
        return Rule(
            model.score_thresh,
            model.nms_thresh,
            model.detections_per_img,
            model.topk_candidates,
            levels=self._levels(model, seen),
            first_label=0,
        )

    def _levels(self, model: Any, seen: Seen) -> tuple[int, ...]:
        """The number of anchors of each level, as torchvision's code computes it."""
        counts = [height * width for height, width in seen["sizes"]]
        each = seen["head"]["cls_logits"].shape[1] // sum(counts)
        del model
        return tuple(count * each for count in counts)


class _Fcos(_Anchored):
    """torchvision's FCOS, whose scores count the centredness of a box."""

    def _losses(self, model: Any, target: Any, head: Any, anchors: Tensor, seen: Seen) -> Mapping[str, Tensor]:
        levels = list(self._levels(model, seen))
        losses: Mapping[str, Tensor] = model.compute_loss([target], head, [anchors], levels)
        return losses

    def _decoded(self, model: Any, distances: Tensor, anchors: Tensor) -> Tensor:
        boxes: Tensor = model.box_coder.decode(distances, anchors)
        return boxes

    def _scores(self, head: Mapping[str, Tensor]) -> Tensor:
        return (head["cls_logits"].float().sigmoid() * head["bbox_ctrness"].float().sigmoid()).sqrt()


class _Ssd(_Anchored):
    """torchvision's SSD, whose scores are shares of all classes and the background."""

    def _losses(self, model: Any, target: Any, head: Any, anchors: Tensor, seen: Seen) -> Mapping[str, Tensor]:
        from torchvision.ops import box_iou

        del seen
        matched = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        if len(target["boxes"]):
            matched = model.proposal_matcher(box_iou(target["boxes"], anchors))
        losses: Mapping[str, Tensor] = model.compute_loss([target], head, [anchors], [matched])
        return losses

    def _scores(self, head: Mapping[str, Tensor]) -> Tensor:
        return head["cls_logits"].float().softmax(-1)[..., 1:]

    def rule(self, model: Any, seen: Seen) -> Rule:  # noqa: ARG002
        return Rule(
            model.score_thresh, model.nms_thresh, model.detections_per_img, model.topk_candidates, by_class=True
        )


def kind_of(model: nn.Module) -> OneStage | None:
    """Returns the kind of a one-stage detector that is known from within; None for any other."""
    if isinstance(model, CentreDetector):
        return _Centre()
    known = {"ssd": ("SSD", _Ssd), "retinanet": ("RetinaNet", _Anchored), "fcos": ("FCOS", _Fcos)}
    for module, (name, kind) in known.items():
        # Without its module, torchvision's class has no instance; the import would take a second.
        loaded = sys.modules.get(f"torchvision.models.detection.{module}")
        if loaded is not None and isinstance(model, getattr(loaded, name)):
            return kind()
    return None


@contextmanager
def seeing(model: nn.Module, kind: OneStage | None) -> Iterator[Seen]:
    """Within the context, reads what the modules of a one-stage detector return."""
    seen: Seen = {}
    if kind is None:
        yield seen
        return

    def read(name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen[name] = output
        if name == "anchor_generator":
            seen["sizes"] = [tuple(maps.shape[-2:]) for maps in inputs[1]]

    with watching(model, kind.watched, after=read):
        yield seen
