"""Registries: values by name, filled by a decorator, read by configurations and commands.

All of them are alike. A name can be taken once. A name that is not known is refused with the nearest known one. And
``package.module:name`` is taken wherever a name is, so that a value of the user's own needs no registration.
"""

import importlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from prune_env.common.errors import ConfigError, UserError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Values of one kind by name.

    Args:
        kind: What a value is called in messages, for example ``criterion``.
        setting: The key that names one, for example ``criterion.name``.
        error: What is raised where a name is not known.

    Example:
        >>> shapes = Registry[int]("shape", "shape.name")
        >>> @shapes.register("square")
        ... def square(side: int) -> int:
        ...     return side * side
        >>> shapes.names()
        ('square',)
        >>> shapes.find("square")(3)
        9
    """

    def __init__(self, kind: str, setting: str, error: type[UserError] = ConfigError) -> None:
        self.kind = kind
        self.setting = setting
        self.error = error
        self._values: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Makes the decorated value known under a name.

        Raises:
            ValueError: If the name is taken.
        """

        def add(value: T) -> T:
            self.add(name, value)
            return value

        return add

    def add(self, name: str, value: T) -> None:
        """Makes a value known under a name.

        Raises:
            ValueError: If the name is taken.
        """
        if name in self._values:
            raise ValueError(f"a {self.kind} named {name!r} is registered already")
        self._values[name] = value

    def names(self, pattern: str = "*") -> tuple[str, ...]:
        """The known names that match a wildcard pattern, in the order of their registration."""
        return tuple(name for name in self._values if fnmatchcase(name, pattern))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def find(self, name: str) -> T:
        """The value of a name, or what ``package.module:name`` imports.

        Raises:
            UserError: If there is none (of the registry's own type of error); offers the nearest known name.
        """
        if name in self._values:
            return self._values[name]
        if ":" in name:
            found: T = import_named(name, f"{self.setting}: {self.kind}", self.error)
            return found
        raise self.error(
            f"{self.setting}: there is no {self.kind} {name!r}; {suggest(name, self._values)}; "
            "or package.module:name for your own."
        )


def import_named(name: str, what: str, error: type[UserError] = ConfigError) -> Any:
    """Imports ``package.module:name``.

    Args:
        name: The module and, after a colon, the name within it, which may have dots.
        what: What it is to be, for messages.
        error: What is raised.

    Raises:
        UserError: Of that type, if the module cannot be imported or has no such name.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise error(f"{what} {name!r}: write it as package.module:name, for example mine.cuts:build")
    try:
        found: Any = importlib.import_module(module)
    except Exception as problem:  # the user's module may raise anything while it is imported
        raise error(
            f"{what} {name!r}: module {module!r} cannot be imported ({type(problem).__name__}: {problem}); "
            "it must be installed, or its folder named in PYTHONPATH"
        ) from problem
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise error(f"{what} {name!r}: {attribute!r} does not exist in module {module!r}")
        found = getattr(found, part)
    return found
