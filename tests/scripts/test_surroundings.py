"""Surroundings that a command does not expect: no home, no working directory, a console of latin-1."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prune_env.common.errors import DataError
from prune_env.data import load_source
from prune_env.evaluation import execution_memory
from prune_env.evaluation.execution import ExecutionChoice, ExecutionSettings


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose home nobody knows: no HOME, and no entry in the list of users."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 1_234_567)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_nothing_is_remembered() -> None:
    with pytest.raises(RuntimeError):
        Path.home()
    execution_memory.remember({}, ExecutionChoice(ExecutionSettings(), "measured"))
    assert execution_memory.recall({}, {}) is None


@pytest.mark.usefixtures("homeless")
def test_without_a_home_a_tilde_is_told() -> None:
    with pytest.raises(DataError, match=r"data\.path: '~/images' begins in a home that nobody knows: HOME is not set"):
        load_source("npz", "~/images")


def test_a_working_directory_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = refused("train", "job.yaml")
    assert said.strip() == "error: The working directory does not exist any more. Change to another one: cd FOLDER."


@pytest.mark.slow
def test_a_console_of_latin_1_without_a_home(tmp_path: Path) -> None:
    """A whole process: the console is opened before any code of the library runs."""
    (tmp_path / "job.yaml").write_text("model: {name: größer als 层}\ndata: {name: digits}\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "prune_env.commands.cli", "inspect", str(tmp_path / "job.yaml")],
        env={**environment, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"error: " + b"model.name: there is no model 'gr\xf6\xdfer als \\u5c42'" in done.stderr
