"""The form in which plans are evaluated: layout, number type, folding, batch size, threads."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

Layout = Literal["channels_last", "contiguous"]
NumberType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ExecutionSettings:
    """How an evaluation's forward passes run.

    Attributes:
        layout: ``channels_last`` or ``contiguous``.
        dtype: ``float32`` or ``bfloat16``, for convolutions and linear layers.
        folded: Whether batch norms are folded into the convolutions before them once they are recalibrated.
        batch: Images a forward pass.
        threads: Threads of torch; None leaves them as they are.
    """

    layout: Layout = "channels_last"
    dtype: NumberType = "float32"
    folded: bool = True
    batch: int = 256
    threads: int | None = None

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def tensor_dtype(self, device: torch.device) -> torch.dtype:
        """The type that weights and images are kept in; a GPU keeps float32 and casts as it goes."""
        return torch.bfloat16 if self.dtype == "bfloat16" and device.type == "cpu" else torch.float32

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """The context that forward passes run in: automatic casts on a GPU, nothing on a CPU."""
        if self.dtype == "bfloat16" and device.type != "cpu":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()
