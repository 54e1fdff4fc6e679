"""The registry of the networks that this library builds itself."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from prune_env.common.errors import ModelError
from prune_env.common.registry import Registry

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "model.name", ModelError)


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Makes a network known by name; the decorated callable takes ``classes`` and ``in_channels``.

    Args:
        name: What ``model.name`` says in a configuration; it comes before a torchvision network of that name.

    Returns:
        A decorator that stores the callable and hands it back unchanged.

    Raises:
        ValueError: If the name is taken.
    """

    def add(builder: Builder) -> Builder:
        MODELS.add(name, builder)
        return builder

    return add
