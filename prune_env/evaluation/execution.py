"""Execution settings: layout, number type, folding, batch size and threads of the forward passes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field

from prune_env.common.ranges import Count, Duration
from prune_env.common.records import Record

Layout = Literal["channels_last", "contiguous"]
NumberType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ExecutionSettings:
    """How the forward passes of evaluations or of training steps run.

    Attributes:
        layout: ``channels_last`` or ``contiguous``.
        dtype: ``float32`` or ``bfloat16``, for convolutions and linear layers.
        folded: Whether batch norms are folded into the convolutions before them, after recalibration; never in
            training.
        batch: Images per forward pass; None for batches as given, as in training.
        threads: Threads of torch; None keeps the current number.
    """

    layout: Layout = "channels_last"
    dtype: NumberType = "float32"
    folded: bool = True
    batch: Count | None = 256
    threads: Count | None = None

    @classmethod
    def for_training(cls, layout: Layout = "contiguous", dtype: NumberType = "float32") -> Self:
        """Returns the settings of training steps."""
        return cls(layout, dtype, folded=False, batch=None)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch's memory format."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def tensor_dtype(self, device: torch.device) -> torch.dtype:
        """Returns the number type of weights and images in evaluations; a GPU keeps float32 and casts per layer."""
        return torch.bfloat16 if self.dtype == "bfloat16" and device.type == "cpu" else torch.float32

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns the context of an evaluation's forward passes: automatic casts on a GPU, no change on a CPU."""
        return nullcontext() if device.type == "cpu" else self.casting(device)

    def casting(self, device: torch.device) -> torch.autocast:
        """Returns the context of a training step's forward pass: automatic casts, since weights stay in float32."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")


@dataclass(frozen=True)
class ExecutionChoice:
    """Execution settings and the reason for them.

    Attributes:
        execution: The settings.
        reason: ``given`` in the config, ``measured`` now, or ``remembered`` from an earlier run on this machine.
        timings: Each measured candidate with its seconds per image, calibration images included.
        agreement: Spearman's rank correlation between rewards in bfloat16 and in float32, over random plans; None if
            it was not measured or is not a finite number.
    """

    execution: ExecutionSettings
    reason: str
    timings: tuple[tuple[ExecutionSettings, float], ...] = ()
    agreement: float | None = None

    def record(self, weights: str | None = None) -> "ExecutionRecord":
        """Returns the choice as a file holds it, with the digest of the network's weights where it is given."""
        timings = [
            TimedExecution(**asdict(candidate), seconds_per_image=seconds) for candidate, seconds in self.timings
        ]
        return ExecutionRecord(
            execution=self.execution, reason=self.reason, agreement=self.agreement, timings=timings, weights=weights
        )


class TimedExecution(Record):
    """Execution settings with their measured time; fields as `ExecutionSettings`."""

    layout: Layout
    dtype: NumberType
    folded: bool
    batch: Count | None
    threads: Count | None
    seconds_per_image: Duration


class ExecutionRecord(Record):
    """The file ``execution.json`` of a run, and a choice in the user's cache; ``form.json`` in earlier releases.

    Attributes:
        execution: As `ExecutionChoice`.
        reason: As `ExecutionChoice`.
        agreement: As `ExecutionChoice`.
        timings: As `ExecutionChoice`.
        weights: The digest of the weights that the run started from; None in the cache.
    """

    execution: ExecutionSettings
    reason: str
    agreement: Annotated[float, Field(ge=-1, le=1)] | None = None
    timings: list[TimedExecution] = Field(default_factory=list)
    weights: str | None = None

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Gives the execution settings, which were called the form, their name of today."""
        return {"execution" if key == "form" else key: value for key, value in document.items()}
