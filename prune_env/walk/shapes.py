"""The output sizes of a network's layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerShape:
    """The output size of one convolution or linear layer, for one image.

    Attributes:
        positions: Output positions over all calls (H*W for a convolution).
        height: Output height in pixels (1 for a linear layer).
        width: Output width in pixels.
    """

    positions: int
    height: int
    width: int
