"""The networks that this library builds itself: a dict and the decorator that fills it."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MODELS: dict[str, Callable[..., nn.Module]] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Make a network known by name; the decorated callable takes ``classes`` and ``in_channels``.

    Args:
        name: What ``model.name`` says in a configuration; it comes before a torchvision network of that name.

    Returns:
        A decorator that stores the callable and hands it back unchanged.

    Raises:
        ValueError: If the name is taken.
    """

    def add(builder: Builder) -> Builder:
        if name in MODELS:
            raise ValueError(f"a network named {name!r} is registered already")
        MODELS[name] = builder
        return builder

    return add
