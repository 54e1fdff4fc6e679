"""The small detector of the embedded default: a residual network and a head that finds objects by their centre."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.models.basic_block import BasicBlock
from prune_env.models.initialise import initialise_he
from prune_env.models.suppression import Rule, detections

STRIDE = 8
"""Pixels from one cell of the head's map to the next."""

RADIUS = 1.5
"""Cells around an object's centre that learn the object, as a distance in cells (FCOS, Tian et al., ICCV 2019)."""

LARGEST = 5.0
"""Largest logarithm of a distance in cells, so that exp() stays finite."""

RARE = 0.01
"""Score of every cell before the training (Lin et al., ICCV 2017): most cells show no object."""


class CentreDetector(nn.Module):
    """A stem, three stages of basic blocks, and a head on a map of stride 8 [our choice].

    Each cell gives a score for each class and the distances to the four sides of a box, as FCOS does. Scores learn by
    the focal loss without class weights (Lin et al., ICCV 2017), boxes by generalised IoU (Rezatofighi et al., CVPR
    2019). The interface is that of torchvision's detectors. A batch as one tensor is taken, too.

    Args:
        classes: Number of classes, without the background.
        in_channels: Channels of the input images.
        widths: Channels of the three stages.
        blocks: Blocks of the three stages.

    Attributes:
        rule: How candidates become detections.
    """

    def __init__(
        self,
        classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32, 48),
        blocks: Sequence[int] = (1, 1, 3),
    ) -> None:
        super().__init__()
        self.classes = classes
        self.rule = Rule()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(widths[0], widths[0], blocks[0], 1)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], 2)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], 2)
        self.conv2 = nn.Conv2d(widths[2], widths[2], 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[2])
        self.relu2 = nn.ReLU()
        self.head = nn.Conv2d(widths[2], classes + 4, 1)
        initialise_he(self)
        nn.init.normal_(self.head.weight, std=0.01)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias[:classes] = -torch.log(torch.tensor((1.0 - RARE) / RARE))
            self.head.bias[classes:] = 0.5

    def forward(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Returns the losses ``scores`` and ``boxes`` in training mode, else the detections of each image.

        Args:
            images: Images [channels, height, width], also of different sizes, or a batch of them.
            targets: ``boxes`` [k, 4] and ``labels`` [k] of each image; needed in training mode.

        Raises:
            ValueError: If there are no targets in training mode.
        """
        batch = images if isinstance(images, Tensor) else _padded(images)
        x = self.relu1(self.bn1(self.conv1(batch)))
        x = self.layer3(self.layer2(self.layer1(x)))
        maps = self.head(self.relu2(self.bn2(self.conv2(x))))
        if not self.training:
            return detections(*self.candidates(maps), self.rule)
        if targets is None:
            raise ValueError("targets must be given in training mode")
        scores, boxes = self.losses(maps, targets)
        return {"scores": scores.mean(), "boxes": boxes.mean()}

    def candidates(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the box [n, cells, 4] and the scores [n, cells, classes] of every cell, in float32."""
        logits, distances = maps.float().split([self.classes, 4], dim=1)
        height, width = maps.shape[2:]
        reach = STRIDE * distances.clamp(max=LARGEST).exp().flatten(2).transpose(1, 2)
        centres = _centres(height, width, maps.device).repeat(1, 2)
        signs = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=maps.device)
        return centres + signs * reach, logits.sigmoid().flatten(2).transpose(1, 2)

    def losses(self, maps: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Returns the losses of scores and boxes of each image, [n], divided by the image's number of object cells."""
        from torchvision.ops import generalized_box_iou_loss  # takes a second

        boxes, _ = self.candidates(maps)
        logits = maps[:, : self.classes].float().flatten(2).transpose(1, 2)
        centres = _centres(maps.shape[2], maps.shape[3], maps.device)
        assigned = [_assigned(centres, target["boxes"]) for target in targets]
        cells = torch.cat([cells for cells, _ in assigned])
        image = torch.repeat_interleave(torch.tensor([len(own) for own, _ in assigned], device=maps.device))
        labels, true = (
            torch.cat([target[key][objects] for target, (_, objects) in zip(targets, assigned, strict=True)])
            for key in ("labels", "boxes")
        )
        wanted = torch.zeros_like(logits)
        wanted[image, cells, labels - 1] = 1.0
        weight = (wanted - logits.sigmoid()).square()
        scores = (weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum((1, 2))
        apart = torch.zeros_like(scores).index_add(0, image, generalized_box_iou_loss(boxes[image, cells], true))
        counts = torch.bincount(image, minlength=len(scores)).clamp_min(1)
        return scores / counts, apart / counts


def centre_detector(classes: int = 10, in_channels: int = 3) -> CentreDetector:
    """The small detector for the embedded default: 16, 32 and 48 channels, a head of stride 8.

    Args:
        classes: Number of classes, without the background.
        in_channels: Channels of the input images.
    """
    return CentreDetector(classes, in_channels)


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """A stage: the first block may change width and resolution, by a 1x1 projection."""
    shortcut: nn.Module = nn.Identity()
    if stride != 1 or in_channels != channels:
        conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        shortcut = nn.Sequential(OrderedDict([("conv", conv), ("bn", nn.BatchNorm2d(channels))]))
    rest = [BasicBlock(channels, channels, 1, nn.Identity()) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, channels, stride, shortcut), *rest)


def _padded(images: Sequence[Tensor]) -> Tensor:
    """Images of different sizes as one batch; zeros fill the rest at the right and the bottom."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    return torch.stack([F.pad(one, (0, width - one.shape[2], 0, height - one.shape[1])) for one in images])


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """The x and y of every cell's centre in pixels, row by row, [height * width, 2]."""
    rows, columns = (STRIDE * (torch.arange(size, device=device) + 0.5) for size in (height, width))
    return torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)


def _assigned(centres: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The cells that show an object, and the object of each: of several, the smallest."""
    if not len(boxes):
        return boxes.new_zeros(0, dtype=torch.int64), boxes.new_zeros(0, dtype=torch.int64)
    sides = torch.cat([centres[:, None] - boxes[:, :2], boxes[:, 2:] - centres[:, None]], dim=2)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (centres[:, None] - middle).abs().amax(2) < RADIUS * STRIDE
    fits = near & (sides.amin(2) > 0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).expand(len(centres), -1)
    smallest = torch.where(fits, areas, torch.inf).argmin(1)
    cells = fits.any(1).nonzero().flatten()
    return cells, smallest[cells]
