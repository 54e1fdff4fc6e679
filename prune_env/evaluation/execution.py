"""Execution settings: layout, number type, folding, batch size and threads of the forward passes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch

Layout = Literal["channels_last", "contiguous"]
NumberType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ExecutionSettings:
    """How forward passes run, those of an evaluation or those of training steps.

    Attributes:
        layout: ``channels_last`` or ``contiguous``.
        dtype: ``float32`` or ``bfloat16``, for convolutions and linear layers.
        folded: Whether batch norms are folded into the convolutions before them once they are recalibrated; never in
            training.
        batch: Images a forward pass; None takes the images as they are given, as training does.
        threads: Threads of torch; None leaves them as they are.
    """

    layout: Layout = "channels_last"
    dtype: NumberType = "float32"
    folded: bool = True
    batch: int | None = 256
    threads: int | None = None

    @classmethod
    def for_training(cls, layout: Layout = "contiguous", dtype: NumberType = "float32") -> Self:
        """The settings of training steps."""
        return cls(layout, dtype, folded=False, batch=None)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def tensor_dtype(self, device: torch.device) -> torch.dtype:
        """The type of an evaluation's weights and images; a GPU keeps float32 and casts in each layer."""
        return torch.bfloat16 if self.dtype == "bfloat16" and device.type == "cpu" else torch.float32

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of an evaluation's forward passes: automatic casts on a GPU, nothing on a CPU."""
        return nullcontext() if device.type == "cpu" else self.casting(device)

    def casting(self, device: torch.device) -> torch.autocast:
        """The context of a training step's forward pass: automatic casts, since weights stay in float32."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")


@dataclass(frozen=True)
class ExecutionChoice:
    """Execution settings and why they were taken.

    Attributes:
        execution: The settings.
        reason: ``given`` in the config, ``measured`` now, or ``remembered`` from an earlier run on this machine.
        timings: What was measured: each candidate with its seconds an image, calibration included.
        agreement: Spearman's rank correlation of the rewards of random plans in bfloat16 with those in
            float32; None where it was not needed, or is no number.
    """

    execution: ExecutionSettings
    reason: str
    timings: tuple[tuple[ExecutionSettings, float], ...] = ()
    agreement: float | None = None

    def as_record(self) -> dict[str, Any]:
        """The choice as plain values, ready for JSON."""
        timings = [{**asdict(candidate), "seconds_per_image": seconds} for candidate, seconds in self.timings]
        return {
            "execution": asdict(self.execution),
            "reason": self.reason,
            "agreement": self.agreement,
            "timings": timings,
        }
