"""`prune-env` in a real terminal of 80 columns: what it shows, and what Ctrl-C leaves behind."""

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from toy import digits_file, rows_of

from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

COLUMNS = 80
ROOT = Path(__file__).parents[2]


def in_a_terminal(*words: object, interrupt: str | None = None) -> tuple[int, list[str]]:
    """Runs `prune-env` in a terminal of its own, and presses Ctrl-C once a pattern appears; its code and its lines.

    Control sequences are removed, and of lines that were drawn over each other the last one stays.
    """
    command = [sys.executable, "-m", "prune_env.commands.cli", *map(str, words)]
    process, terminal = pty.fork()
    if process == 0:
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
        os.execve(command[0], command, environment | {"TERM": "xterm"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    said, pressed, deadline = b"", interrupt is None, time.monotonic() + 300
    while True:
        assert time.monotonic() < deadline, said.decode(errors="replace")
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the process has ended
            break
        if not part:
            break
        said += part
        if not pressed and re.search(str(interrupt).encode(), said):
            os.write(terminal, b"\x03")
            pressed = True
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    lines = [line.rstrip("\r").split("\r")[-1].rstrip() for line in text.split("\n")]
    return os.waitstatus_to_exitcode(status), lines


SENTENCE = re.compile(
    r"fine-tuned: accuracy \d+\.\d\d% on the test set, (\d+\.\d\d points (less|more) than|as much as) the dense "
    r"network's \d+\.\d\d%, with \d+\.\d% of its MACs and \d+\.\d% of its params, (\d\.\d\d times .+|no faster)\."
)
"""A sentence that is longer than a line: a word that is broken at a line's end does not fit it."""


def check_width(lines: Sequence[str]) -> None:
    """No line is wider than the terminal but those to copy, and nothing is cut."""
    for line in lines:
        to_copy = line.startswith(("  prune-env ", "  tensorboard ")) or re.match(r"(\w+ +)?/\S+$", line)
        assert len(line) <= COLUMNS or to_copy, line
        assert "…" not in line


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_file(tmp_path_factory.mktemp("settings"), "search.evaluations=60", "finetune.batch_size=16")


def offered(lines: Sequence[str]) -> list[str]:
    """The words of the last `prune-env` command among the lines."""
    return shlex.split([line for line in lines if line.startswith("  prune-env ")][-1])[1:]


def test_a_search_that_is_stopped_and_resumed_reads_well(settings: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    code, stopped = in_a_terminal("train", settings, f"run.directory={root}", interrupt=r"(1[6-9]|[2-4]\d)/60")
    assert code == 130
    text = " ".join(" ".join(stopped).split())
    assert "Traceback" not in text
    assert "Traceback" not in text
    done = len(rows_of(RunDirectory.open(root))) - 1
    assert 16 <= done < 60
    assert f"Interrupted after {done} evaluations. Every file in {root} is whole, and {root}/plan.json is the" in text
    assert offered(stopped) == ["train", "--resume", str(root)]
    code, resumed = in_a_terminal(*offered(stopped), "--finetune", "1")
    assert code == 0
    assert any(re.match(r"60/60 ━+ best reward -0\.\d+, accuracy \d\d\.\d\d% 0:00:00$", line) for line in resumed)
    assert SENTENCE.search(" ".join(resumed))
    heading = next(line for line in resumed if "reward set" in line)
    assert heading.split() == ["reward", "set", "test", "top-1", "MACs", "params", "ms"]
    check_width(stopped + resumed)


def test_a_fine_tuning_that_is_stopped_is_resumed_as_it_says(settings: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert in_a_terminal("train", settings, f"run.directory={root}", "search.evaluations=16")[0] == 0
    code, stopped = in_a_terminal("finetune", root, "finetune.epochs=4", interrupt="epoch 3, ")
    assert code == 130
    assert "Traceback" not in "".join(stopped)
    assert offered(stopped) == ["finetune", str(root), "--resume"]
    assert not (root / "finetune" / "summary.json").exists()
    code, resumed = in_a_terminal(*offered(stopped))
    assert code == 0
    assert "epoch 1, " not in "".join(resumed)
    assert (root / "finetune" / "summary.json").is_file()


def test_workers_end_silently_with_the_command(settings: Path, tmp_path: Path) -> None:
    more = ("search.workers=2", "search.lag=2")
    code, stopped = in_a_terminal("train", settings, f"run.directory={tmp_path / 'run'}", *more, interrupt="workers, ")
    assert code == 130
    text = "\n".join(stopped)
    assert "Interrupted after " in text
    assert "Traceback" not in text
    assert "KeyboardInterrupt" not in text


def test_before_anything_is_written_it_says_so(settings: Path, tmp_path: Path) -> None:
    code, stopped = in_a_terminal("train", settings, f"run.directory={tmp_path / 'run'}", interrupt="loading")
    assert (code, stopped[-2:]) == (130, ["Interrupted before the search began. Nothing was written.", ""])
    assert not (tmp_path / "run").exists()
