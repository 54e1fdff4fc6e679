"""Files that survive a kill, a full disk and a power cut."""

import json
import os
import uuid
from pathlib import Path
from typing import Any


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file atomically: a reader sees the old file or the new file, never a part of one.

    Args:
        path: The file. Its folder must exist.
        data: The whole content.

    Raises:
        OSError: The disk is full, or the folder cannot be written. The old file is unchanged.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            # Without fsync, a power cut may leave an empty file under the new name.
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105  (os.replace is documented to be atomic)
    finally:
        part.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """Formats a value as indented JSON.

    Raises:
        ValueError: The value holds a number that is not finite, which JSON cannot express.
    """
    return json.dumps(value, indent=2, allow_nan=False)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a text file; an unfinished last line is removed first.

    Args:
        path: The file, UTF-8. It is created if it is missing.
        line: Text without a line break.

    Raises:
        OSError: The file cannot be written. At worst an unfinished last line remains, which `whole_lines` ignores.
    """
    if path.is_file():
        _drop_torn_line(path)
    with path.open("ab") as file:
        file.write(f"{line}\n".encode())


def whole_lines(path: Path) -> list[bytes]:
    """Returns the lines of a file without a last line that a kill or a full disk left unfinished; none if missing."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _drop_torn_line(path: Path) -> None:
    """Removes an unfinished last line, so that the next record starts on a line of its own."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
