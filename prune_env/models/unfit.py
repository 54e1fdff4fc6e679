"""What constructors of networks raise for arguments that do not fit."""

from prune_env.common.errors import ModelError
from prune_env.common.text import shorten

UNFIT = (TypeError, ValueError, RuntimeError, MemoryError, OverflowError)
"""Unknown arguments, wrong values, and sizes that no memory holds."""


def unfit_arguments(name: str, error: Exception) -> ModelError:
    """The error for a network that its constructor refuses to build."""
    first = str(error).partition("\n")[0] or type(error).__name__
    return ModelError(f"model {name!r} does not take these model.arguments: {shorten(first, 200)}")
