"""MobileNetV1 (arXiv:1704.04861) and V2 (arXiv:1801.04381) for 32x32 images.

[our choice], as is usual: neither the stem nor V2's second stage halves the image, so that the last convs
still see 2x2 pixels (V1) and 4x4 pixels (V2).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from prune_env.models.initialise import initialise_he
from prune_env.models.registry import register_model

# Channels and stride of each depthwise-separable block.
V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

# Expansion, channels, blocks and stride of the first block, for each stage.
V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class CifarMobileNet(nn.Module):
    """A sequence of conv blocks, global pooling, one linear layer.

    Args:
        features: The blocks, stem first.
        channels: Output channels of the last block.
        classes: Outputs of the classifier.
    """

    def __init__(self, features: list[nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to outputs [N, classes]."""
        return self.linear(torch.flatten(self.pool(self.features(x)), 1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """V2's block: expand by a 1x1 conv, filter each channel, project by a linear 1x1 conv.

    The input is added to the output where both have the same shape.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise conv.
        expansion: Channels of the depthwise conv per input channel; 1 omits the first 1x1 conv.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            steps["expand"] = _conv_bn(in_channels, hidden, 1, 1, 1, nn.ReLU6())
        steps["depthwise"] = _conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6())
        steps["project"] = _conv_bn(hidden, out_channels, 1, 1, 1, nn.Identity())
        self.steps = nn.Sequential(steps)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        out: Tensor = self.steps(x)
        return x + out if self.adds_input else out


def _conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int, groups: int, activation: nn.Module
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(
        OrderedDict([("conv", conv), ("bn", nn.BatchNorm2d(out_channels)), ("activation", activation)])
    )


@register_model("cifar_mobilenet_v1")
def cifar_mobilenet_v1(classes: int = 10, in_channels: int = 3) -> CifarMobileNet:
    """MobileNetV1 for CIFAR: alternating depthwise 3x3 and pointwise 1x1 convs, each with BN and ReLU."""
    width = 32
    features: list[nn.Module] = [_conv_bn(in_channels, width, 3, 1, 1, nn.ReLU())]
    for channels, stride in V1_BLOCKS:
        features.append(_conv_bn(width, width, 3, stride, width, nn.ReLU()))
        features.append(_conv_bn(width, channels, 1, 1, 1, nn.ReLU()))
        width = channels
    return CifarMobileNet(features, width, classes)


@register_model("cifar_mobilenet_v2")
def cifar_mobilenet_v2(classes: int = 10, in_channels: int = 3) -> CifarMobileNet:
    """MobileNetV2 for CIFAR: inverted residuals, then a 1x1 conv to 1,280 channels."""
    width = 32
    features: list[nn.Module] = [_conv_bn(in_channels, width, 3, 1, 1, nn.ReLU6())]
    for expansion, channels, blocks, first_stride in V2_STAGES:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            features.append(InvertedResidual(width, channels, stride, expansion))
            width = channels
    features.append(_conv_bn(width, 1280, 1, 1, 1, nn.ReLU6()))
    return CifarMobileNet(features, 1280, classes)
