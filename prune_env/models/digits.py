"""The network of the embedded default: a residual CNN for 8x8 images of one channel, trained on the spot."""

from collections import OrderedDict

from torch import nn

from prune_env.models.cifar_resnet import CifarResNet
from prune_env.models.registry import register_model

DEPTH = 20


@register_model("digits_resnet")
def digits_resnet(classes: int = 10, in_channels: int = 1) -> CifarResNet:
    """The small residual CNN for scikit-learn's digits: 16, 32 and 64 channels at 8x8, 4x4 and 2x2 pixels.

    [our choice]: three stages of three basic blocks; 1x1 projections where the width changes (option B). The units
    are the nine convs inside the blocks and the three residual streams.

    Args:
        classes: Outputs of the classifier.
        in_channels: Channels of the input images.
    """
    return CifarResNet(DEPTH, classes, in_channels, _projection)


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
    return nn.Sequential(OrderedDict([("conv", conv), ("bn", nn.BatchNorm2d(channels))]))
