"""The form in which plans are evaluated: layout, number type, folding, batch size."""

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Form:
    """How an evaluation's forward passes run.

    Attributes:
        layout: ``channels_last`` or ``contiguous``.
        dtype: ``float32`` or ``bfloat16``, for convolutions and linear layers.
        folded: Whether batch norms are folded into the convolutions before them once they are recalibrated.
        batch: Images a forward pass.
    """

    layout: Literal["channels_last", "contiguous"] = "channels_last"
    dtype: Literal["float32", "bfloat16"] = "float32"
    folded: bool = True
    batch: int = 256

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number type as torch names it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
