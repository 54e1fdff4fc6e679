"""A clock that waits for the device."""

import time

import torch


def now(device: torch.device) -> float:
    """Waits until the device is idle, then reads a clock in seconds: CUDA calls return before their work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
