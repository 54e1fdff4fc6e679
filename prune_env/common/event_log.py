"""The log that TensorBoard reads: one file of events, written by this process itself.

torch's SummaryWriter writes in a thread: where the disk is full, the thread dies with a traceback, and the error comes
up at a later call without the file's name. Its file names also hold the name of this machine.
"""

import io
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary as protos

from prune_env.common.files import naming

FLUSH_SECONDS = 10
"""Seconds between writes: the longest delay in TensorBoard, and the longest part of the log that a kill loses."""

_numbers = itertools.count()


class EventLog:
    """Writes curves, texts and pictures for TensorBoard.

    Args:
        folder: The folder of the log; made if it does not exist.
        purge_step: The first step that this log writes again: TensorBoard forgets what earlier logs in the folder say
            from this step on; None if there are none.

    Raises:
        OSError: The log cannot be written; names the file.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        # TensorBoard reads the logs of a folder in the order of their names.
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}.{next(_numbers)}"
        self._pending = io.BytesIO()
        self._records = RecordWriter(self._pending)
        self._written = -float("inf")
        self._add(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        with naming(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        self.flush()

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes a point of several curves, by tag."""
        self.add_summary(
            Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]), step
        )

    def add_text(self, tag: str, text: str) -> None:
        """Writes a text in Markdown."""
        self.add_summary(protos.text(tag, text), 0)

    def add_image(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """Writes a picture, uint8 [height, width, 3]."""
        self.add_summary(protos.image(tag, pixels, dataformats="HWC"), step)

    def add_summary(self, summary: Any, step: int) -> None:
        """Writes a summary as TensorBoard defines it."""
        self._add(Event(summary=summary, step=step))
        if time.monotonic() - self._written >= FLUSH_SECONDS:
            self.flush()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Writes what was added since the last call."""
        pending = self._pending.getvalue()
        # Forget it first: a part that cannot be written is told once.
        self._pending.seek(0)
        self._pending.truncate()
        self._written = time.monotonic()
        with naming(self.path), self.path.open("ab") as file:
            file.write(pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
