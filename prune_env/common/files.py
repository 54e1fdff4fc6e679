"""Files that survive a kill, a full disk and a power cut."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prune_env.common.errors import RunError


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file whole: a reader sees the earlier file or the new one, never a part.

    Args:
        path: The file; its folder exists.
        data: All of its bytes.

    Raises:
        OSError: The disk is full, or the folder cannot be written. The earlier file is as it was.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            # Without it, a power cut may leave the new name on an empty file.
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105  (the call that the promise rests on, by its own name)
    finally:
        part.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """A value as JSON, indented.

    Raises:
        ValueError: The value holds a number that is not finite, which JSON has no word for.
    """
    return json.dumps(value, indent=2, allow_nan=False)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a record as the last line of a file of JSON lines.

    Args:
        path: The file, made where it is missing.
        record: What JSON can hold.

    Raises:
        OSError: It cannot be written; at worst a torn last line is left, which no reader takes for a record.
        ValueError: The record holds a number that is not finite. Nothing is written.
    """
    line = json.dumps(dict(record), allow_nan=False, ensure_ascii=False) + "\n"
    if path.is_file():
        _drop_torn_line(path)
    with path.open("ab") as file:
        file.write(line.encode("utf-8"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a last line torn by a kill or a full disk is ignored.

    Args:
        path: The file.

    Returns:
        The records in order; none where there is no file.

    Raises:
        RunError: A line before the last is not a JSON object.
    """
    if not path.is_file():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested beyond reason
        record = None
    if not isinstance(record, dict):
        raise RunError(f"{str(path)!r} is damaged: line {number} is not a JSON object")
    return record


def _drop_torn_line(path: Path) -> None:
    """Cuts off an unfinished last line, which the next record would otherwise be glued to."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
