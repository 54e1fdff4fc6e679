"""The parameter-free shortcut of the CIFAR ResNets, in a form whose channels can be cut one by one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. 2016, section 4.2: every stride-th pixel, new channels zero.

    Output channel j reads input channel ``source[j]``, or zero where ``source[j] == in_channels``. The dense
    shortcut puts as many zero channels before the inputs as after them. Cutting channels rewrites ``source``,
    so the input stream and the output stream may keep different channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least ``in_channels``.
        stride: Take every stride-th row and column.
    """

    source: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        first = (out_channels - in_channels) // 2
        source = torch.full((out_channels,), in_channels, dtype=torch.int64)
        source[first : first + in_channels] = torch.arange(in_channels)
        # Not persistent: published weights have no such key.
        self.register_buffer("source", source, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        # One zero channel after the inputs serves every output that reads zero.
        return F.pad(pixels, (0, 0, 0, 0, 0, 1)).index_select(1, self.source)

    def keep_inputs(self, kept: Iterable[int]) -> None:
        """Cut input channels in place; outputs that read a cut channel read zero from now on.

        Args:
            kept: The input channels that stay, in their new order.

        Raises:
            ValueError: If a channel is repeated or out of range.
        """
        channels = self._checked(kept, self.in_channels, "input")
        position = torch.full((self.in_channels + 1,), len(channels), dtype=torch.int64, device=self.source.device)
        position[channels] = torch.arange(len(channels), device=self.source.device)
        self.source = position[self.source]
        self.in_channels = len(channels)

    def keep_outputs(self, kept: Iterable[int]) -> None:
        """Cut output channels in place.

        Args:
            kept: The output channels that stay, in their new order.

        Raises:
            ValueError: If a channel is repeated or out of range.
        """
        channels = self._checked(kept, self.out_channels, "output")
        self.source = self.source[channels]
        self.out_channels = len(channels)

    def extra_repr(self) -> str:
        """Show the widths and the stride where the network is printed."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"

    def _checked(self, kept: Iterable[int], channels: int, side: str) -> Tensor:
        # A negative index would silently count from the end.
        indices = [int(channel) for channel in kept]
        if len(set(indices)) != len(indices) or any(not 0 <= index < channels for index in indices):
            raise ValueError(f"kept {side} channels must be distinct and in 0..{channels - 1}, given {indices}")
        return torch.tensor(indices, dtype=torch.int64, device=self.source.device)
