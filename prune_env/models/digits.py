"""The network of the embedded default: a residual CNN for 8x8 images of one channel, trained on the spot."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from prune_env.models.basic_block import BasicBlock
from prune_env.models.initialise import initialise_he
from prune_env.models.registry import register_model

WIDTHS = (16, 32, 64)
BLOCKS = 3


class DigitsResNet(nn.Module):
    """[I] our choice: three stages of three basic blocks; 1x1 projections where the width changes (option B).

    Its units are the nine convs inside the blocks and the three streams that the blocks add to.

    Args:
        classes: Outputs of the classifier.
        in_channels: Channels of the input images.
    """

    def __init__(self, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[2], classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    shortcut = nn.Identity() if stride == 1 else _projection(in_channels, channels, stride)
    first = BasicBlock(in_channels, channels, stride, shortcut)
    rest = [BasicBlock(channels, channels, 1, nn.Identity()) for _ in range(BLOCKS - 1)]
    return nn.Sequential(first, *rest)


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
    return nn.Sequential(OrderedDict([("conv", conv), ("bn", nn.BatchNorm2d(channels))]))


@register_model("digits_resnet")
def digits_resnet(classes: int = 10, in_channels: int = 1) -> DigitsResNet:
    """The small residual CNN for scikit-learn's digits: 16, 32 and 64 channels at 8x8, 4x4 and 2x2 pixels."""
    return DigitsResNet(classes, in_channels)
