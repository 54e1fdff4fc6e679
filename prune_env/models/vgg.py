"""VGG-16 with BN for 32x32 images: the thirteen convs of Simonyan and Zisserman 2015, one linear layer."""

import torch
from torch import Tensor, nn

from prune_env.models.initialise import initialise_he
from prune_env.models.registry import register_model

# Convs of each stage; a 2x2 max pooling stands between stages, so the last stage sees 2x2 pixels.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class CifarVGG(nn.Module):
    """Stages of 3x3 convs with BN and ReLU, global pooling, one linear layer.

    Args:
        classes: Outputs of the classifier.
        in_channels: Channels of the input images.
    """

    def __init__(self, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, stage in enumerate(STAGES):
            if number > 0:
                layers.append(nn.MaxPool2d(2))
            for channels in stage:
                conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
                in_channels = channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(in_channels, classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to outputs [N, classes]."""
        return self.linear(torch.flatten(self.pool(self.features(x)), 1))  # type: ignore[no-any-return]


@register_model("cifar_vgg16_bn")
def cifar_vgg16_bn(classes: int = 10, in_channels: int = 3) -> CifarVGG:
    """VGG-16 with BN for CIFAR: 313,196,544 MACs in its convs at 32x32."""
    return CifarVGG(classes, in_channels)
