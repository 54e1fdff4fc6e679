"""The journal of a run: outcomes that workers sent before their turn, so that a kill loses none of them."""

from collections.abc import Mapping
from typing import Any

from prune_env.common.records import append_record, read_records, renamed
from prune_env.env.trial import ArrivedRecord
from prune_env.runs.folder import cannot_write
from prune_env.runs.run_directory import RunDirectory


class RunJournal:
    """Keeps early outcomes in ``arrived.jsonl``; ``evaluations.jsonl`` stays in the order of the proposals.

    Args:
        run: The run.
        quality: The task's name for its quality.

    Attributes:
        arrived: The records of an interrupted run, by the trial's number.

    Raises:
        RunError: If the file is damaged.
    """

    def __init__(self, run: RunDirectory, quality: str) -> None:
        self.run = run
        kind = renamed(ArrivedRecord, quality=quality)
        self.arrived = {record.number: record for record in read_records(run.arrived, kind)}

    def keep(self, record: Mapping[str, Any]) -> None:
        """Adds the record of an outcome that came before its turn.

        Raises:
            RunError: If the file cannot be written.
        """
        try:
            append_record(self.run.arrived, record)
        except OSError as error:
            raise cannot_write(self.run.arrived, error) from error

    def close(self) -> None:
        """Removes the file: at the end of a search, every outcome is in ``evaluations.jsonl``."""
        self.run.arrived.unlink(missing_ok=True)
