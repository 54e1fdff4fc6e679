"""The part of a one-stage detector before the suppression of overlapping boxes, for export and timing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.errors import ModelError
from prune_env.common.modes import in_eval_mode
from prune_env.models import suppression
from prune_env.models.centre_detector import CentreDetector
from prune_env.models.suppression import Rule, detections
from prune_env.tasks.base import Core
from prune_env.tasks.detection.one_stage import OneStage, Seen, kind_of, seeing

OUTPUTS = ("scores", "boxes")


class _CentreCore(nn.Module):
    """`CentreDetector` up to its candidates."""

    def __init__(self, model: CentreDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores and boxes of all candidates."""
        model = self.model
        x = model.relu1(model.bn1(model.conv1(images)))
        x = model.layer3(model.layer2(model.layer1(x)))
        boxes, scores = model.candidates(model.head(model.relu2(model.bn2(model.conv2(x)))))
        return scores, boxes


class _AnchoredCore(nn.Module):
    """A detector of torchvision up to its candidates, for images of one size, whose anchors are then constants."""

    anchors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, kind: OneStage, seen: Seen, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        resized = seen["transform"][0]
        self.resized = tuple(resized.image_sizes[0])
        self.padding = (resized.tensors.shape[3] - self.resized[1], resized.tensors.shape[2] - self.resized[0])
        self.scale = (size[1] / self.resized[1], size[0] / self.resized[0])
        self.register_buffer("anchors", seen["anchor_generator"][0], persistent=False)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.transform, f"image_{name}"))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores and boxes of all candidates."""
        x = (images - self.mean) / self.std
        if tuple(x.shape[2:]) != self.resized:
            x = F.interpolate(x, self.resized, mode="bilinear", align_corners=False)
        if any(self.padding):
            x = F.pad(x, (0, self.padding[0], 0, self.padding[1]))
        features = self.model.backbone(x)
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        head = self.model.head(maps)
        boxes, scores = self.kind.candidates(
            self.model, {"head": head, "anchor_generator": self.anchors.expand(images.shape[0], -1, -1)}
        )
        right, bottom = float(self.resized[1]), float(self.resized[0])
        x0, y0, x1, y1 = boxes.unbind(-1)
        across, down = self.scale
        edges = [x0.clamp(0.0, right) * across, y0.clamp(0.0, bottom) * down]
        edges += [x1.clamp(0.0, right) * across, y1.clamp(0.0, bottom) * down]
        return scores, torch.stack(edges, dim=-1)


def before_suppression(model: nn.Module, images: Tensor) -> Core:
    """Returns the part of a one-stage detector before suppression: scores and boxes of all candidates.

    Args:
        model: The detector, in eval mode.
        images: Images [n, C, H, W] of the size that the part is for.

    Raises:
        ModelError: If the detector suppresses boxes within, or is not known from within.
    """
    kind = kind_of(model)
    if kind is None:
        raise ModelError(
            f"A {type(model).__name__} has no part before the suppression of boxes that is known: two-stage detectors "
            "suppress boxes within, and of your own detectors only inputs and outputs are known. Export it as "
            "safetensors (--to safetensors)."
        )
    with in_eval_mode(model), torch.no_grad(), seeing(model, kind) as seen:
        model(list(images[:1]))
    rule = kind.rule(model, seen)
    size = (int(images.shape[2]), int(images.shape[3]))
    module = _CentreCore(model) if isinstance(model, CentreDetector) else _AnchoredCore(model, kind, seen, size)
    text = json.dumps({**asdict(rule), "outputs": OUTPUTS, "image_size": size}, indent=1)
    files = {"decoder.json": text + "\n", "decoder.py": Path(suppression.__file__).read_text(encoding="utf-8")}
    return Core(module.eval(), OUTPUTS, "before NMS", partial(_decoded, rule=rule), files)


def _decoded(outputs: Sequence[Tensor], rule: Rule) -> list[dict[str, Tensor]]:
    scores, boxes = outputs
    return detections(boxes, scores, rule)
