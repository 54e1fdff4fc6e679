"""Whole searches, several at a time, in processes of this machine."""

import os
from pathlib import Path
from typing import Any

import pytest

from prune_env.common.errors import RunError
from prune_env.evaluation.evaluator import Evaluator
from prune_env.search.pools.whole import spread


class Broken(Evaluator):
    """Cannot be built in another process."""

    def __reduce__(self) -> tuple[object, ...]:
        return refuse, ()


def refuse() -> None:
    raise RunError("cannot be built here")


def squared(number: int) -> int:
    return number * number


def failing(number: int) -> None:
    raise RunError(str(number))


def marked(folder: Path, number: int) -> int:
    """Leaves a file, and fails if it is the first."""
    (folder / str(number)).touch()
    if number == 0:
        raise RunError("the first fails")
    return os.getpid()


@pytest.mark.slow
def test_each_call_gives_its_result_in_another_process() -> None:
    assert dict(spread(squared, {"two": (2,), "three": (3,)}, 2)) == {"two": 4, "three": 9}


@pytest.mark.slow
def test_after_an_error_no_further_call_is_started(tmp_path: Path) -> None:
    calls: dict[int, tuple[Any, ...]] = {number: (tmp_path, number) for number in range(20)}
    with pytest.raises(RunError, match=r"^the first fails$"):
        list(spread(marked, calls, 1))
    # The executor may have handed on a few calls before it learned of the error.
    assert len(list(tmp_path.iterdir())) < 10


@pytest.mark.slow
def test_a_process_that_dies_is_told_with_what_to_do() -> None:
    with pytest.raises(RunError, match=r"process that ran a search has died.*Repeat the command.*search\.workers"):
        list(spread(os._exit, {"a": (9,)}, 1))
