"""The edits of plans in the lines of ``evaluations.jsonl``, checked when a report reads them."""

from collections.abc import Mapping
from typing import Any

from prune_env.common.errors import RunError
from prune_env.common.records import Record
from prune_env.common.text import shorten


def counts_in(field: str, counts: Any, totals: Mapping[str, int] | None = None) -> dict[str, int]:
    """Checks the numbers of groups or stripes that a line records.

    Args:
        field: The field, for the message.
        counts: Its value.
        totals: The largest number allowed for a layer; None for no bound.

    Returns:
        The numbers by layer.

    Raises:
        RunError: Names the field, the layer, what is given and what is allowed.
    """
    if counts is None:  # a plan without edits
        return {}
    if not isinstance(counts, Mapping):
        raise RunError(f"{field}: given {shorten(repr(counts))}; must be a number for each layer. {Record.remedy}")
    for name, count in counts.items():
        most = None if totals is None else totals.get(name)
        # JSON's true and false are integers in Python.
        if type(count) is not int or count < 1 or (most is not None and count > most):
            allowed = "1 or more" if most is None else f"1 to {most}"
            raise RunError(
                f"{field}.{shorten(str(name))}: given {shorten(repr(count))}; must be an integer, {allowed}. "
                f"{Record.remedy}"
            )
    return dict(counts)
