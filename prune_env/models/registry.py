"""Registry of our own networks."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from prune_env.common.errors import ModelError
from prune_env.common.registry import Registry

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "model.name", ModelError)


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Registers a network under a name; the decorated callable takes ``classes`` and ``in_channels``.

    Args:
        name: The value of ``model.name`` in a configuration; overrides a torchvision network of the same name.

    Returns:
        A decorator that stores the callable and returns it unchanged.

    Raises:
        ValueError: If the name is taken.
    """

    def add(builder: Builder) -> Builder:
        MODELS.add(name, builder)
        return builder

    return add
