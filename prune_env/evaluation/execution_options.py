"""What a config leaves open of the execution settings: the values that are tried of each property, the usual first."""

from collections.abc import Mapping
from typing import Any

import torch

from prune_env.config.sections import ExecutionSection
from prune_env.evaluation.execution import ExecutionSettings

Options = Mapping[str, tuple[Any, ...]]
"""Values to try by property of `ExecutionSettings`; a single one where it is given."""

LONG_SEARCH = 150
"""Evaluations from which a faster number type earns back the plans that show its agreement [our choice]."""

USUAL_THREADS = torch.get_num_threads()
"""Torch's own choice, before any execution settings are chosen."""

BATCHES = (256, 128, 64, 32, 16, 512)


def open_options(given: ExecutionSection, evaluations: int) -> Options:
    """The values to try.

    Args:
        given: What the config asks for; null where it leaves a property open.
        evaluations: How many plans the search will evaluate; a short one stays in float32.
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
    """The options with no batch larger than so many images, where one is small enough; the least batch otherwise.

    A larger batch would be the same forward pass under another name.
    """
    batches = options["batch"]
    return {**options, "batch": tuple(size for size in batches if size <= images) or (min(batches),)}


def usual(options: Options) -> ExecutionSettings:
    """The settings with the first value of each property."""
    return ExecutionSettings(**{key: values[0] for key, values in options.items()})
