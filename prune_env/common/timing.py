"""Times candidates in turn and chooses the fastest; one threshold says when another choice is faster."""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Candidate = TypeVar("Candidate", bound=Hashable)

FASTER = 0.95
"""A choice is faster than the usual choice if it takes at most this share of the time [our choice]."""


def now(device: torch.device) -> float:
    """Waits until the device is idle, then reads a clock in seconds: CUDA calls return before their work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_in_turn(
    runs: Mapping[Candidate, Callable[[], object]],
    device: torch.device,
    rounds: int,
    warmup: int = 1,
    failures: tuple[type[Exception], ...] = (),
) -> dict[Candidate, list[float]]:
    """Times each candidate once a round, so that a busy moment hits all of them alike.

    Args:
        runs: What to time, by candidate.
        device: Where it runs; each run is timed until the device has finished it.
        rounds: How often each candidate is timed, 1 or more.
        warmup: Rounds before that are not counted, 0 or more.
        failures: A candidate that raises one of these is left out from then on.

    Returns:
        Seconds of each round, by each candidate that did not fail.
    """
    seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in runs}
    for turn in range(warmup + rounds):
        for candidate in list(seconds):
            started = now(device)
            try:
                runs[candidate]()
            except failures:
                del seconds[candidate]
                continue
            took = now(device) - started
            if turn >= warmup:
                seconds[candidate].append(took)
    return seconds


def is_faster(seconds: float, usual: float) -> bool:
    """Whether a choice is faster than the usual choice by the threshold `FASTER`; both in seconds."""
    return seconds <= FASTER * usual


def fastest(seconds: Mapping[Candidate, float], usual: Candidate) -> Candidate:
    """Returns the fastest candidate if it is faster by the threshold, otherwise the usual candidate.

    Args:
        seconds: Seconds of each candidate. If the usual candidate is missing (it could not run), any other is faster.
        usual: The candidate to prefer.

    Example:
        >>> fastest({"float32": 1.0, "bfloat16": 0.97}, usual="float32")
        'float32'
        >>> fastest({"float32": 1.0, "bfloat16": 0.5}, usual="float32")
        'bfloat16'
    """
    best = min(seconds, key=seconds.__getitem__, default=usual)
    return best if is_faster(seconds.get(best, math.inf), seconds.get(usual, math.inf)) else usual
