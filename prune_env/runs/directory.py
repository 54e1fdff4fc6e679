"""RunDirectory: what one run leaves on disk. A file appears whole or not at all."""

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
from prune_env.common.files import append_record, atomic_write, read_records
from prune_env.common.versions import versions
from prune_env.config import RunConfig


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run, and the names of what is in it.

    Attributes:
        root: The folder.
    """

    root: Path

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Makes the folder of a new run.

        Args:
            path: A folder that does not exist; those above it are made where they are missing.

        Returns:
            The empty run.

        Raises:
            RunError: The folder exists, or cannot be made. Nothing is written over.
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
        """Makes the folder of a new run with its first files, so that it appears with all of them or not at all.

        Args:
            path: As `create`.

        Yields:
            The run under another name, to be filled.

        Raises:
            RunError: As `create`.
        """
        root = Path(path)
        cls.check_free(root)
        part = cls.create(root.with_name(f".{uuid.uuid4().hex}.part"))
        try:
            yield part
            cls.check_free(root)
            part.root.rename(root)
        except BaseException:
            shutil.rmtree(part.root, ignore_errors=True)
            raise

    @staticmethod
    def check_free(path: str | os.PathLike[str], option: str = "run.directory=...") -> None:
        """Whether `create` could make a folder here, asked before hours of work; nothing is made.

        Args:
            path: A folder that does not exist.
            option: What gives another one, for the error.

        Raises:
            RunError: As `create`: the folder exists, or nothing can be made in the nearest folder that does.
        """
        root = Path(path)
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
            raise _cannot_make(root, f"{os.strerror(errno.EACCES)} ({str(nearest)!r})")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """An existing run.

        Args:
            path: A folder that a run was started in.

        Returns:
            The run.

        Raises:
            RunError: The folder is missing, or holds no run.
        """
        run = cls(Path(path))
        if not run.root.is_dir():
            raise RunError(f"run directory {str(run.root)!r} does not exist")
        if not run.config.is_file():
            raise RunError(f"{str(run.root)!r} is not a run directory: it has no {run.config.name}")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from searching into the run meanwhile; a kill lets go of it.

        Raises:
            RunError: Another process holds it.
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

    @property
    def config(self) -> Path:
        """The resolved settings, with seed and versions."""
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        """The best plan so far."""
        return self.root / "plan.json"

    @property
    def policy(self) -> Path:
        """The actor's weights."""
        return self.root / "policy.safetensors"

    @property
    def evaluations_file(self) -> Path:
        """Every plan tried, with its metrics, one JSON object a line."""
        return self.root / "evaluations.jsonl"

    @property
    def splits(self) -> Path:
        """The indices of the reward, calibration and test set."""
        return self.root / "splits.json"

    @property
    def sensitivity(self) -> Path:
        """The evidence for the sensitive layers."""
        return self.root / "sensitivity.json"

    @property
    def scores(self) -> Path:
        """The criterion's scores."""
        return self.root / "scores.safetensors"

    @property
    def form(self) -> Path:
        """The form of the forward passes, and what was measured to choose it."""
        return self.root / "form.json"

    @property
    def latency(self) -> Path:
        """What latency follows from the widths by, where something asks for it."""
        return self.root / "latency.json"

    @property
    def summary(self) -> Path:
        """The result in numbers."""
        return self.root / "summary.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard log."""
        return self.root / "tensorboard"

    @property
    def dense_weights(self) -> Path:
        """The dense network's weights, where they were trained for this run."""
        return self.root / "dense.safetensors"

    @property
    def report(self) -> Path:
        """The result as a page to read."""
        return self.root / "report.html"

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Writes a file of the run whole, or leaves the earlier one.

        Args:
            path: The file; its folder is made where it is missing.
            data: All of its bytes.

        Raises:
            RunError: It cannot be written; the earlier file is as it was.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write_text(self, path: Path, text: str) -> None:
        """Writes a UTF-8 text as ``write_bytes`` does."""
        self.write_bytes(path, text.encode("utf-8"))

    def write_json(self, path: Path, value: object) -> None:
        """Writes a value as JSON, indented, as ``write_bytes`` does.

        Raises:
            ValueError: The value holds a number that is not finite, which JSON has no word for.
        """
        self.write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """The value in a JSON file of the run.

        Raises:
            RunError: It cannot be read.
        """
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{str(path)!r} cannot be read: {error}") from None

    def write_config(self, config: RunConfig) -> None:
        """Writes the resolved settings; the versions stand above them as comments, so that it loads again."""
        header = [f"# {name} {version}\n" for name, version in versions().items()]
        self.write_text(self.config, "".join(header) + config.dump_yaml())

    def append_evaluation(self, record: Mapping[str, Any]) -> None:
        """Adds one evaluation as the last line of ``evaluations.jsonl``.

        Args:
            record: What JSON can hold.

        Raises:
            RunError: It cannot be written; the evaluations before it are as they were.
            ValueError: The record holds a number that is not finite.
        """
        try:
            append_record(self.evaluations_file, record)
        except OSError as error:
            raise _cannot_write(self.evaluations_file, error) from error

    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations so far, in order; a last line torn by a kill or a full disk is ignored.

        Raises:
            RunError: A line before the last is not a JSON object.
        """
        return read_records(self.evaluations_file)


def _exists_already(root: Path, option: str = "run.directory=...") -> RunError:
    return RunError(
        f"run directory {str(root)!r} exists already, and nothing is written over; "
        f"choose another with {option} or move it away"
    )


def _cannot_make(root: Path, reason: str) -> RunError:
    return RunError(f"run directory {str(root)!r} cannot be made: {reason}; choose another with run.directory=...")


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {str(path)!r}: {error.strerror or error}; what was there before is unchanged")
