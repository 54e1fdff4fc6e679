"""The numbers of stripes that a run recorded, checked when its report reads them."""

from collections.abc import Mapping
from typing import Any

from prune_env.common.errors import RunError
from prune_env.common.text import shorten


def counts_in(file: str, counts: Any, totals: Mapping[str, int] | None = None) -> dict[str, int]:
    """Checks the numbers of stripes in a file of a run.

    Args:
        file: The file's name, for the message.
        counts: The field ``stripes`` of the file.
        totals: The largest number allowed for a layer; None for no bound.

    Returns:
        The numbers by layer.

    Raises:
        RunError: Names the file, the layer, what is given and what is allowed.
    """
    restore = "Restore the file from a copy, or start a new run."
    if not isinstance(counts, Mapping):
        raise RunError(
            f"{file} is damaged: 'stripes' is {shorten(repr(counts))}; allowed is a number of stripes for each layer, "
            f"by its name. {restore}"
        )
    for name, count in counts.items():
        most = None if totals is None else totals.get(name)
        # JSON's true and false are integers in Python.
        if type(count) is not int or count < 1 or (most is not None and count > most):
            allowed = "1 or more" if most is None else f"1 to {most}"
            raise RunError(
                f"{file} is damaged: layer {shorten(repr(name))} has {shorten(repr(count))} stripes; allowed are "
                f"integers, {allowed}. {restore}"
            )
    return dict(counts)
