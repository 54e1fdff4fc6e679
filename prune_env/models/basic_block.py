"""The residual block of two 3x3 convs that our ResNets share."""

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convs with BN beside a shortcut, added, then ReLU (He et al. 2016, arXiv:1512.03385).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convs.
        stride: Stride of the first conv.
        shortcut: Maps the input to the shape of the second conv's output.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        # Two ReLU modules, so that a hook on a ReLU sees a single place of the block.
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))  # type: ignore[no-any-return]
