"""The word that ``env.protect`` may be given in place of a mapping of module names to reasons."""

from typing import Any

RESIDUAL_STREAMS = "residual_streams"
"""Stands for every residual stream of a network, alone or as a key of the mapping."""


def spelled_out(given: Any) -> Any:
    """The mapping that the word stands for; anything else stays as it is."""
    return {RESIDUAL_STREAMS: "residual stream"} if given == RESIDUAL_STREAMS else given
