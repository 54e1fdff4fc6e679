"""Small detectors and images with boxes for the tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from zoo import randomise

from prune_env.data import Batch
from prune_env.models.centre_detector import CentreDetector

CLASSES = 3
SIDE = 48


def boxed_batch(count: int, seed: int = 0, colours: int = 3, size: tuple[int, int] = (SIDE, SIDE)) -> Batch:
    """Noise with bright squares, whose boxes are known; the last image has none."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(count, colours, *size, generator=generator)
    targets: list[Mapping[str, Tensor]] = []
    for place in range(count):
        boxes, labels = [], []
        for number in range(0 if place == count - 1 else 1 + place % 2):
            side = int(torch.randint(10, 20, (1,), generator=generator))
            x = int(torch.randint(0, size[1] // 2 - side + 1, (1,), generator=generator)) + number * size[1] // 2
            y = int(torch.randint(0, size[0] - side + 1, (1,), generator=generator))
            label = 1 + int(torch.randint(0, CLASSES, (1,), generator=generator))
            images[place, label % colours, y : y + side, x : x + side] = 1.0
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
        targets.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }
        )
    return Batch(images, targets)


def small_centre(colours: int = 3, classes: int = CLASSES) -> CentreDetector:
    torch.manual_seed(0)
    model = randomise(CentreDetector(classes, colours, (8, 8, 12), (1, 1, 1)), 0)
    assert isinstance(model, CentreDetector)
    # The initial weights score all cells alike and low.
    nn.init.normal_(model.head.weight, std=0.3)
    nn.init.constant_(model.head.bias, -1.0)
    return model.eval()


class Backbone(nn.Module):
    """Two convolutions with batch norm, each of which halves the maps, as a pyramid of one width."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem = nn.Conv2d(3, channels, 3, 4, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, maps = self.stem(images).relu(), {}
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x)).relu()
            maps[str(place)] = x
        return maps


def small_torchvision(name: str) -> nn.Module:
    """torchvision's SSD, RetinaNet, FCOS or Faster R-CNN over a small backbone."""
    from torchvision.models import detection
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator

    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 80}
    if name == "ssd":
        boxes = DefaultBoxGenerator([[2], [2]], min_ratio=20, max_ratio=60)
        head = detection.ssd.SSDHead([8, 8], boxes.num_anchors_per_location(), CLASSES + 1)
        model = detection.ssd.SSD(Backbone(), boxes, (64, 56), CLASSES + 1, head=head, score_thresh=0.05)
    elif name == "fcos":
        anchors = AnchorGenerator(((16,), (32,)), ((1.0,), (1.0,)))
        model = detection.fcos.FCOS(Backbone(32), CLASSES + 1, **sizes, anchor_generator=anchors, score_thresh=0.01)
    elif name == "retinanet":
        anchors = AnchorGenerator(((12, 16), (24, 32)), ((0.5, 1.0),) * 2)
        model = detection.retinanet.RetinaNet(
            Backbone(), CLASSES + 1, **sizes, anchor_generator=anchors, score_thresh=0.01
        )
    else:
        anchors = AnchorGenerator(((12, 16), (24, 32)), ((0.5, 1.0),) * 2)
        model = detection.faster_rcnn.FasterRCNN(
            Backbone(), CLASSES + 1, **sizes, rpn_anchor_generator=anchors, box_score_thresh=0.01
        )
    for module in model.modules():
        # torchvision's heads start so flat that no candidate stands out.
        if isinstance(module, nn.Conv2d) and module.weight.std() < 0.02:
            nn.init.normal_(module.weight, std=0.2)
    return randomise(model, 0).eval()


class OwnDetector(nn.Module):
    """A detector of which only the contract is known: one box an image, by its mean colours."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.out = nn.Conv2d(6, 5, 1)
        self.wrong = wrong

    def forward(self, images: Any, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        assert isinstance(images, list), "the contract's images are a list"
        maps = self.out(self.norm(self.conv(torch.stack(images))).relu()).mean((2, 3))
        if self.training:
            assert targets is not None
            centres = [target["boxes"].mean(0) if len(target["boxes"]) else torch.zeros(4) for target in targets]
            far = (maps[:, :4] - torch.stack(centres) / SIDE).square().mean()
            losses = {"far": far, "score": maps[:, 4].square().mean()}
            return losses["far"] if self.wrong == "losses" else losses
        low = SIDE * maps[:, :2].sigmoid()
        found = [
            {
                "boxes": torch.cat([low[place], low[place] + 9.0])[None],
                "labels": torch.ones(1, dtype=torch.int64),
                "scores": maps[place, 4:].sigmoid(),
            }
            for place in range(len(images))
        ]
        if self.wrong == "labels":
            return [{**one, "labels": one["labels"].float()} for one in found]
        if self.wrong == "boxes":
            return [{**one, "boxes": one["boxes"][0]} for one in found]
        if self.wrong == "keys":
            return [{"boxes": one["boxes"]} for one in found]
        return maps if self.wrong == "tensor" else found


def own_detector(wrong: str = "") -> OwnDetector:
    """The user's own detector by name: ``detectors:own_detector``."""
    torch.manual_seed(0)
    return OwnDetector(wrong)
