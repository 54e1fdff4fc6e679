"""Reads mutants and counts: refused in words, right, or failed."""

import random
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.mutation import Form, mutant
from prune_env.common.errors import UserError
from prune_env.common.text import COLUMNS, ROWS, printable
from prune_env.rewards import RewardError

SECONDS, MEGABYTES = 5.0, 500.0
"""What one mutant may cost."""


@dataclass(frozen=True)
class Case:
    """One format, ready to be fuzzed.

    Attributes:
        seeds: Whole files, with their forms (None: bytes).
        place: Where a mutant is written.
        read: Reads the mutant as the library does.
        check: Raises `AssertionError` if what was read is not what the mutant says.
        restored: Files beside the mutant that reading it changes; put back before each.
    """

    seeds: Sequence[tuple[bytes, Form | None]]
    place: Path
    read: Callable[[], Any]
    check: Callable[[Any], None] = lambda _: None
    restored: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Format:
    """A row of the table: the format's name, its share of the mutants, and what makes its case in a folder."""

    name: str
    share: float
    make: Callable[[Path], Case]


FORMATS: dict[str, Format] = {}
"""Every format that the library reads."""


def fuzzed(name: str, share: float = 1.0) -> Callable[[Callable[[Path], Case]], Callable[[Path], Case]]:
    """Adds a format to the table; slow readers get a smaller share."""

    def add(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
        FORMATS[name] = Format(name, share, make)
        return make

    return add


@dataclass
class Counts:
    """The results of one format.

    Attributes:
        refused: Mutants that a message refused.
        right: Mutants that were read as what they say.
        failed: The number of failures by their words, and the first mutant of each.
        slowest: Seconds of the slowest mutant.
        growth: The largest growth of the memory while a mutant was read, in MB.
    """

    refused: int = 0
    right: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    first: dict[str, bytes] = field(default_factory=dict)
    slowest: float = 0.0
    growth: float = 0.0


class _TooLong(BaseException):
    """Not an Exception, so that no reader takes it for damage of the file."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory() -> tuple[float, float]:
    """The memory of this process now and at its peak since the last call, in MB; forgets the peak."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, peak = (int(lines[key].split()[0]) / 1e3 for key in ("VmRSS", "VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, KeyError):  # not Linux: only a new peak is seen
        now = peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return now, peak


def outcome_of(case: Case, data: bytes) -> tuple[str, str]:
    """Reads one mutant: ``refused``, ``right`` or ``failed``, and the failure in words."""
    case.restored()
    case.place.write_bytes(data)
    try:
        with warnings.catch_warnings(), _alarm(4 * SECONDS):
            warnings.simplefilter("ignore")
            case.check(case.read())
    except (UserError, RewardError) as error:
        said = str(error)
        rows = sum(max(1, -(-len(line) // COLUMNS)) for line in said.split("\n"))
        fits = rows <= ROWS and printable(said) == said
        return ("refused", "") if fits else ("failed", f"a message of {rows} rows, or with control characters")
    except _TooLong:
        return "failed", f"a hang of {4 * SECONDS:g} s"
    except AssertionError as error:
        return "failed", f"wrong: {_first(error)}"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "prune_env" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "the test"
        return "failed", f"{type(error).__name__} in {place}: {_first(error)}"
    return "right", ""


def _first(error: BaseException) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0][:100])


def fuzz(
    names: Sequence[str], mutants: int, seed: int, folder: Path, seconds: float | None = None
) -> Mapping[str, Counts]:
    """Reads mutants of several formats, each in turn.

    Args:
        names: Names of `FORMATS`.
        mutants: Mutants of all formats together, divided by their shares.
        seed: The same seed gives the same mutants.
        folder: A folder for the files.
        seconds: Stops after this time; None for no limit.
    """
    shares = sum(FORMATS[name].share for name in names)
    counts = {}
    for name in names:
        (folder / name.replace("/", "-")).mkdir()
        case, found = FORMATS[name].make(folder / name), Counts()
        counts[name] = found
        for data, _ in case.seeds:
            if (outcome := outcome_of(case, data))[0] != "right":
                raise AssertionError(f"{name}: the file before any change is {outcome}")
        begun, own = time.monotonic(), FORMATS[name].share / shares
        for number in range(round(mutants * own)):
            if seconds is not None and time.monotonic() - begun > seconds * own:
                break
            chance = random.Random(f"{name} {seed} {number}")
            data = mutant(*chance.choice(case.seeds), chance)
            now, _ = _memory()
            started = time.process_time()
            outcome, words = outcome_of(case, data)
            found.slowest = max(found.slowest, time.process_time() - started)
            found.growth = max(found.growth, growth := _memory()[1] - now)
            if time.process_time() - started > SECONDS:
                outcome, words = "failed", f"more than {SECONDS:g} s"
            if growth > MEGABYTES:
                outcome, words = "failed", f"growth of more than {MEGABYTES:g} MB"
            if outcome == "failed":
                found.failed[words] += 1
                found.first.setdefault(words, data)
            elif outcome == "refused":
                found.refused += 1
            else:
                found.right += 1
    return counts


def table_of(counts: Mapping[str, Counts]) -> str:
    """The counts of all formats as text, one line each."""
    lines = [f"{'format':<14}{'mutants':>9}{'refused':>9}{'right':>9}{'failed':>9}{'slowest s':>11}{'growth MB':>11}"]
    rows = {**counts}
    total = Counts()
    for one in counts.values():
        total.refused += one.refused
        total.right += one.right
        total.failed += one.failed
        total.slowest, total.growth = max(total.slowest, one.slowest), max(total.growth, one.growth)
    for name, one in {**rows, "all": total}.items():
        failed = sum(one.failed.values())
        lines.append(
            f"{name:<14}{one.refused + one.right + failed:>9}{one.refused:>9}{one.right:>9}{failed:>9}"
            f"{one.slowest:>11.2f}{one.growth:>11.0f}"
        )
    return "\n".join(lines)
