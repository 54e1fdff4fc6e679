"""The user's own network, given as ``package.module:callable``."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from prune_env.common.errors import ModelError


def build_imported(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import the user's callable and call it with ``arguments`` alone.

    Args:
        name: ``package.module:callable``.
        arguments: The keyword arguments of the call (``model.arguments``).

    Returns:
        What the callable returned.

    Raises:
        ModelError: If the module cannot be imported, has no such callable, or the call fails or returns
            something other than a ``torch.nn.Module``.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ModelError(f"model {name!r}: write it as package.module:callable, for example mynets.small:build")
    # The user's module may raise anything at all while it is imported or called: say it in words.
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ModelError(
            f"model {name!r}: module {module_name!r} cannot be imported ({type(error).__name__}: {error}); "
            "it must be installed, or its folder named in PYTHONPATH"
        ) from error
    build = getattr(module, attribute, None)
    if not callable(build):
        problem = "is not callable" if hasattr(module, attribute) else "does not exist"
        raise ModelError(f"model {name!r}: {attribute!r} {problem} in module {module_name!r}")
    try:
        model = build(**arguments)
    except Exception as error:
        raise ModelError(
            f"model {name!r}: calling {attribute} with model.arguments={dict(arguments)} raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model {name!r}: {attribute} returned {type(model).__name__}; it must return a torch.nn.Module"
        )
    return model
