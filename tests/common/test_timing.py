"""The fastest candidate: candidates run in turn, failing ones are left out, and only a clear gain counts."""

import time

import pytest
import torch

from prune_env.common.timing import FASTER, fastest, is_faster, time_in_turn

CPU = torch.device("cpu")


@pytest.mark.parametrize(("rounds", "warmup"), [(3, 1), (2, 0)])
def test_candidates_run_in_turn_and_the_warm_up_does_not_count(rounds: int, warmup: int) -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    seconds = time_in_turn(runs, CPU, rounds, warmup)
    assert calls == ["one", "other"] * (rounds + warmup)
    assert {name: len(times) for name, times in seconds.items()} == {"one": rounds, "other": rounds}


def test_each_candidate_has_its_own_seconds() -> None:
    seconds = time_in_turn({"slow": lambda: time.sleep(0.02), "quick": lambda: None}, CPU, 2)
    assert all(slow >= 0.02 for slow in seconds["slow"])
    assert min(seconds["quick"]) < 0.02


@pytest.mark.parametrize("after", [0, 2])
def test_a_candidate_that_fails_is_left_out_and_not_run_again(after: int) -> None:
    calls: list[str] = []

    def failing() -> None:
        calls.append("failing")
        if len(calls) > after:
            raise RuntimeError("no kernel")

    assert time_in_turn({"failing": failing, "fine": lambda: None}, CPU, 4, failures=(RuntimeError,)).keys() == {"fine"}
    assert len(calls) == after + 1


def test_another_error_is_not_passed_over() -> None:
    def failing() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        time_in_turn({"failing": failing}, CPU, 1, failures=(RuntimeError,))


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"usual": 1.0, "other": 0.9}, "other"),
        ({"usual": 1.0, "other": FASTER}, "other"),
        ({"usual": 1.0, "other": FASTER + 0.001}, "usual"),
        ({"usual": 1.0, "other": 0.99}, "usual"),
        ({"usual": 1.0, "other": 2.0}, "usual"),
        ({"usual": 1.0, "other": 0.9, "best": 0.5}, "best"),
        ({"other": 7.0}, "other"),
        ({}, "usual"),
    ],
)
def test_only_what_is_clearly_faster_replaces_the_usual(seconds: dict[str, float], taken: str) -> None:
    assert fastest(seconds, "usual") == taken


def test_what_takes_just_the_threshold_is_not_faster() -> None:
    assert is_faster(FASTER, 1.0)
    assert not is_faster(1.001 * FASTER, 1.0)
