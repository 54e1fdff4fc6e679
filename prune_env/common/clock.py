"""A clock that waits for the device."""

import time

import torch


def now(device: torch.device) -> float:
    """Seconds of a clock, once the device has done all that it was given: a GPU works on after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
