"""The values to try for each execution setting that the config leaves open; the usual value comes first."""

from collections.abc import Mapping
from typing import Any

import torch

from prune_env.config.sections import ExecutionSection
from prune_env.evaluation.execution import ExecutionSettings

Options = Mapping[str, tuple[Any, ...]]
"""Values to try, by property of `ExecutionSettings`; a single value if the config sets the property."""

LONG_SEARCH = 150
"""Least evaluations at which bfloat16 saves more time than the agreement check costs [our choice]."""

USUAL_THREADS = torch.get_num_threads()
"""Torch's default, read before any execution settings change the number of threads."""

BATCHES = (256, 128, 64, 32, 16, 512)


def open_options(given: ExecutionSection, evaluations: int) -> Options:
    """Returns the values to try.

    Args:
        given: The config's execution section; None leaves a property open.
        evaluations: Plans that the search will evaluate; a short search stays in float32.
    """
    options: Options = {
        "layout": ("channels_last", "contiguous"),
        "folded": (True, False),
        "threads": tuple(dict.fromkeys((USUAL_THREADS, 1))),
        "dtype": ("float32", "bfloat16") if evaluations >= LONG_SEARCH else ("float32",),
        "batch": BATCHES,
    }
    return {key: values if (one := getattr(given, key)) is None else (one,) for key, values in options.items()}


def fitting(options: Options, images: int) -> Options:
    """Drops the batch sizes above ``images``; keeps the smallest batch size if all are above.

    Batch sizes above the number of images all give the same forward pass.
    """
    batches = options["batch"]
    return {**options, "batch": tuple(size for size in batches if size <= images) or (min(batches),)}


def usual(options: Options) -> ExecutionSettings:
    """Returns the settings with the first value of each property."""
    return ExecutionSettings(**{key: values[0] for key, values in options.items()})
