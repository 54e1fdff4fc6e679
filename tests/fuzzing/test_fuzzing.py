"""Mutants of every format: a few in each run of the tests, more in the slow ones; `make fuzz` reads many."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzzing.formats import FORMATS
from fuzzing.harness import Case, fuzz, outcome_of, table_of
from fuzzing.mutation import JSON, LINES, PNG, SAFETENSORS, WORDS, YAML, ZIP, Form, mutant
from prune_env.common.errors import UserError


def test_a_few_mutants_of_every_format(tmp_path: Path) -> None:
    counts = fuzz(list(FORMATS), 600, seed=2, folder=tmp_path)
    assert not any(found.failed for found in counts.values()), [found.failed for found in counts.values()]
    assert sum(found.refused for found in counts.values()) > 150
    # A digest refuses almost every mutant; those of files without one must get as far as their fields.
    assert sum(found.right for found in counts.values()) > 40


@pytest.mark.slow
def test_mutants_for_half_a_minute(tmp_path: Path) -> None:
    counts = fuzz(list(FORMATS), 20_000, seed=3, folder=tmp_path, seconds=25)
    failed = {name: found.failed for name, found in counts.items() if found.failed}
    assert not failed, f"{failed}\n{table_of(counts)}"


class TestTheHarness:
    """What the harness must see; one that saw nothing would pass every mutant."""

    @pytest.mark.parametrize(
        ("read", "outcome"),
        [
            (lambda: None, "right"),
            (lambda: raise_(UserError("no")), "refused"),
            (lambda: raise_(UserError("x\x1b[2J" + "\n" * 100)), "refused"),
            (lambda: raise_(ValueError("no")), "failed"),
            (lambda: raise_(AssertionError("wrong")), "failed"),
            (lambda: raise_(MemoryError()), "failed"),
            (lambda: raise_(RecursionError()), "failed"),
        ],
    )
    def test_tells_a_refusal_from_a_traceback(self, tmp_path: Path, read: Callable[[], Any], outcome: str) -> None:
        assert outcome_of(Case([], tmp_path / "file", read), b"")[0] == outcome

    def test_sees_a_long_message(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(UserError, "__str__", Exception.__str__)
        case = Case([], tmp_path / "file", lambda: raise_(UserError("line\n" * 100)))
        assert outcome_of(case, b"") == ("failed", "a message of 101 rows, or with control characters")

    def test_sees_a_hang_a_slow_reader_and_growth(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fuzzing.harness.SECONDS", 0.05)
        assert outcome_of(Case([], tmp_path / "file", endless), b"") == ("failed", "a hang of 0.2 s")

    def test_makes_mutants_that_end(self) -> None:
        """A value that was put into a part of itself would have no end."""
        data = json.dumps({"a": {"b": {"c": {"d": [1, [2, [3]]]}}}}).encode()
        for seed in range(5_000):
            mutant(data, JSON, random.Random(seed))

    def test_gives_the_same_mutants_for_the_same_seed(self) -> None:
        data = json.dumps({"a": [1, 2, {"b": "c"}]}).encode()
        one, other = ([mutant(data, JSON, random.Random(seed)) for seed in range(50)] for _ in range(2))
        assert one == other
        assert len(set(one)) > 25


@pytest.mark.parametrize("form", [JSON, LINES, YAML, SAFETENSORS, ZIP, PNG, WORDS])
def test_a_form_writes_what_it_read(form: Form, tmp_path: Path) -> None:
    """Otherwise no mutant would get past a parser."""
    seen = 0
    for name in ("plan", "config", "weights", "npz", "image", "voc", "journal"):
        (tmp_path / name).mkdir(exist_ok=True)
        for data, own in FORMATS[name].make(tmp_path / name).seeds:
            if own is form:
                seen += 1
                assert form.decode(form.encode(form.decode(data))) == form.decode(data)
        if seen:
            break
    assert seen


def raise_(error: Exception) -> None:
    raise error


def endless() -> None:
    while True:
        pass
