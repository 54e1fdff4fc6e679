"""The CIFAR ResNets of He et al. 2016 (arXiv:1512.03385, section 4.2), with option-A shortcuts by default."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prune_env.models.basic_block import BasicBlock
from prune_env.models.initialise import initialise_he
from prune_env.models.registry import register_model
from prune_env.models.shortcut import ZeroPadShortcut

DEPTHS = (20, 32, 44, 56, 110)


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks with 16, 32 and 64 channels, global pooling, one linear layer.

    Args:
        depth: Layers with weights; 6n + 2.
        classes: Outputs of the classifier.
        in_channels: Channels of the input images.
        shortcut: Builds the shortcut from (input channels, output channels, stride) where the width changes.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 10,
        in_channels: int = 3,
        shortcut: Callable[[int, int, int], nn.Module] = ZeroPadShortcut,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, 1, shortcut)
        self.layer2 = _stage(16, 32, blocks, 2, shortcut)
        self.layer3 = _stage(32, 64, blocks, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to outputs [N, classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


def _stage(
    in_channels: int, channels: int, blocks: int, stride: int, shortcut: Callable[[int, int, int], nn.Module]
) -> nn.Sequential:
    """Build a stage: only the first block may change width and resolution; the others have identity shortcuts."""
    changes = stride != 1 or in_channels != channels
    first_shortcut = shortcut(in_channels, channels, stride) if changes else nn.Identity()
    first = BasicBlock(in_channels, channels, stride, first_shortcut)
    rest = [BasicBlock(channels, channels, 1, nn.Identity()) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def _builder(depth: int) -> Callable[..., CifarResNet]:
    def build(classes: int = 10, in_channels: int = 3) -> CifarResNet:
        return CifarResNet(depth, classes, in_channels)

    build.__doc__ = f"The CIFAR ResNet of {depth} layers, with option-A shortcuts."
    return build


for _depth in DEPTHS:
    register_model(f"cifar_resnet{_depth}")(_builder(_depth))
