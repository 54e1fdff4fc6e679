"""Files that survive a kill, a full disk and a power cut."""

import errno
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

ADVICE: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "; free some space, then repeat or resume the command",
        errno.EDQUOT: "; free some space, then repeat or resume the command",
        errno.EROFS: "; give a folder on another file system",
    }
)
"""What to do about an error of the system, by its number."""


def in_words(error: OSError) -> str:
    """Says what went wrong with a file, and what to do about a full disk or a read-only file system.

    Example:
        >>> in_words(OSError(errno.EROFS, os.strerror(errno.EROFS)))
        'Read-only file system; give a folder on another file system'
    """
    return f"{error.strerror or error}{ADVICE.get(error.errno or 0, '')}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in an error of the system: a full disk is told by a file's number, and by that of a part of it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file atomically: a reader sees the old file or the new file, never a part of one.

    Args:
        path: The file. Its folder must exist.
        data: The whole content.

    Raises:
        OSError: The disk is full, or the folder cannot be written; names the file. The old file is unchanged.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with naming(path):
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
    with naming(path):
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
