"""Folder: the directory of a run or a training. A folder or file in it appears complete or not at all."""

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prune_env.common.errors import RunError
from prune_env.common.files import atomic_write, in_words
from prune_env.common.records import DIGEST, Record, check_digest, read_json, sealed, to_file


@dataclass(frozen=True)
class Folder:
    """The directory of a run or a training.

    Attributes:
        root: The folder.
    """

    root: Path

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Makes a new folder.

        Args:
            path: A folder that does not exist; missing parents are made.

        Returns:
            The empty folder.

        Raises:
            RunError: The folder exists, or cannot be made. Nothing is overwritten.
        """
        root = Path(path)
        cls.check_free(root)
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_make(root, error.strerror or str(error)) from None
        try:
            root.mkdir()
        except FileExistsError:
            raise _exists_already(root) from None
        except OSError as error:
            raise _cannot_make(root, error.strerror or str(error)) from None
        return cls(root)

    @classmethod
    @contextmanager
    def making(cls, path: str | os.PathLike[str]) -> Iterator[Self]:
        """Makes a new folder that appears with all of its first files or not at all.

        Args:
            path: As `create`.

        Yields:
            The folder under a temporary name, to be filled.

        Raises:
            RunError: As `create`.
        """
        root = Path(path)
        cls.check_free(root)
        part = cls.create(root.with_name(f".{uuid.uuid4().hex}.part"))
        try:
            yield part
            cls.check_free(root)
            try:
                part.root.rename(root)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise _exists_already(root) from None  # another process was faster
        except BaseException:
            shutil.rmtree(part.root, ignore_errors=True)
            raise

    @staticmethod
    def check_free(path: str | os.PathLike[str], option: str = "run.directory=...") -> None:
        """Checks that `create` can make the folder, before hours of work; makes nothing.

        Args:
            path: A folder that does not exist.
            option: The option that names another folder, for the error message.

        Raises:
            RunError: The folder exists, its nearest existing parent is not a writable folder, or a submitted Ray job
                would lose it at its end.
        """
        root = Path(path)
        _refuse_temporary(root)
        try:
            root.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            raise _cannot_make(root, getattr(error, "strerror", None) or str(error)) from None
        else:
            raise _exists_already(root, option)
        nearest = next(place for place in root.absolute().parents if os.path.lexists(place))
        if not nearest.is_dir():
            raise _cannot_make(root, f"{os.strerror(errno.ENOTDIR)} ({str(nearest)!r})")
        if not os.access(nearest, os.W_OK | os.X_OK):
            read_only = os.statvfs(nearest).f_flag & os.ST_RDONLY
            raise _cannot_make(root, f"{os.strerror(errno.EROFS if read_only else errno.EACCES)} ({str(nearest)!r})")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder against other processes; a kill releases the lock.

        Raises:
            RunError: Another process holds the lock.
        """
        folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise RunError(
                f"{str(self.root)!r} is being written by another process. Wait for it to end, or stop it."
            ) from None
        finally:
            os.close(folder)

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Writes a complete file, or leaves the earlier one unchanged.

        Args:
            path: The file; a missing parent folder is made.
            data: The content.

        Raises:
            RunError: The file cannot be written; the earlier file is unchanged.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            raise cannot_write(path, error) from error

    def write_text(self, path: Path, text: str) -> None:
        """Writes a UTF-8 text file, as `write_bytes`."""
        self.write_bytes(path, text.encode("utf-8"))

    def write_record(self, path: Path, record: Record) -> None:
        """Writes a record as indented JSON with a digest, as `write_bytes`."""
        self.write_bytes(path, to_file(record))

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Writes plain values as indented JSON with a digest, as `write_bytes`.

        Raises:
            ValueError: The values hold a number that is not finite; JSON cannot represent it.
        """
        text = json.dumps(sealed(content), indent=2, allow_nan=False, ensure_ascii=False)
        self.write_text(path, f"{text}\n")

    def read_json(self, path: Path) -> dict[str, Any]:
        """Reads a file of `write_json`, without its digest.

        Raises:
            RunError: The file cannot be read, or its digest is another.
        """
        document = read_json(path)
        if not isinstance(document, dict):
            raise RunError(f"{str(path)!r} is damaged: it is not a JSON object. {Record.remedy}")
        check_digest(document, repr(str(path)))
        return {key: value for key, value in document.items() if key != DIGEST}


def _refuse_temporary(root: Path) -> None:
    """Refuses a relative folder inside a submitted Ray job, whose working directory is temporary."""
    # Ray sets this variable for the command of a submitted job.
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not root.is_absolute():
        raise RunError(
            f"run directory {str(root)!r} lies in the working directory of a submitted Ray job, which is removed at "
            "the job's end. Give an absolute path on a disk that stays: run.directory=/..."
        )


def _exists_already(root: Path, option: str = "run.directory=...") -> RunError:
    return RunError(
        f"run directory {str(root)!r} exists already, and nothing is written over; "
        f"choose another with {option} or move it away"
    )


def _cannot_make(root: Path, reason: str) -> RunError:
    return RunError(f"run directory {str(root)!r} cannot be made: {reason}; choose another with run.directory=...")


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written."""
    return RunError(f"cannot write {str(path)!r}: {in_words(error)}; the earlier file is unchanged")
