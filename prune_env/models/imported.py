"""The user's own network, given as ``package.module:callable``."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError
from prune_env.models.registry import MODELS


def build_imported(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Imports the user's callable and calls it with ``arguments`` alone.

    Args:
        name: ``package.module:callable``.
        arguments: The keyword arguments of the call (``model.arguments``).

    Returns:
        The network that the callable returns.

    Raises:
        ModelError: If the module cannot be imported, has no such callable, or the call fails or returns
            something other than a ``torch.nn.Module``.
    """
    build = MODELS.find(name)
    # The user's callable may raise any exception: report it as a ModelError.
    try:
        model = build(**arguments)
    except Exception as error:
        raise ModelError(
            f"model {name!r}: the call with model.arguments={dict(arguments)} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r} returned {type(model).__name__}; the callable must return a torch.nn.Module")
    return model
