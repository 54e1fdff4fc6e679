"""The journal of a run: outcomes that workers sent before their turn, so that a kill loses none of them."""

from collections.abc import Mapping
from typing import Any

from prune_env.common.errors import RunError
from prune_env.common.files import append_record, read_records
from prune_env.runs.folder import cannot_write
from prune_env.runs.run_directory import RunDirectory


class RunJournal:
    """Keeps early outcomes in ``arrived.jsonl``; ``evaluations.jsonl`` stays in the order of the proposals.

    Args:
        run: The run.

    Attributes:
        arrived: The records of an interrupted run, by the trial's number.

    Raises:
        RunError: If the file is damaged.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.arrived: dict[int, Mapping[str, Any]] = {}
        for row in read_records(run.arrived):
            if not isinstance(number := row.get("number"), int):
                raise RunError(
                    f"{str(run.arrived)!r} is damaged: a line has no number. Remove the file; the run then measures "
                    "these plans again."
                )
            self.arrived[number] = row

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
