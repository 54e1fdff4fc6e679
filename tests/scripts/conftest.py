"""Fixtures that run the commands, and disks of a few kilobytes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from prune_env.commands.cli import main


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs `prune-env` in a fresh folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prune-env", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `prune-env`, which must end with code 2; gives what it said, on one line and without frames."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["prune-env", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert not said.out
        assert "Traceback" not in said.err
        return re.sub(r"[\s│]+", " ", said.err)

    return run


Disk = Callable[..., Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a small disk in memory: ``disk("size=64k")``; again to change it."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        change = ["-o", f"remount,{options}"] if place.exists() else ["-o", options]
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", *change, "tmpfs", str(place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip() or 'mount failed'}")
        return place

    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    yield mount
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def full_disk(disk: Disk) -> Path:
    """A disk without a free byte, with a folder."""
    place = disk("size=64k")
    (place / "run").mkdir()
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1024))
    return place / "run"
