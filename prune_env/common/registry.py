"""Registries: values by name, filled by a decorator, read by configurations and commands.

All registries behave alike. A name is registered once. An unknown name is refused, with the nearest known name in the
message. ``package.module:name`` is accepted wherever a name is, so that users need not register their own values.
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
        kind: The word for a value in messages, for example ``criterion``.
        setting: The configuration key that selects a value, for example ``criterion.name``.
        error: The type of error that an unknown name raises.

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
        """Registers the decorated value under a name.

        Raises:
            ValueError: If the name is taken.
        """

        def add(value: T) -> T:
            self.add(name, value)
            return value

        return add

    def add(self, name: str, value: T) -> None:
        """Registers a value under a name.

        Raises:
            ValueError: If the name is taken.
        """
        if name in self._values:
            raise ValueError(f"a {self.kind} named {name!r} is registered already; choose another name")
        self._values[name] = value

    def names(self, pattern: str = "*") -> tuple[str, ...]:
        """Returns the registered names that match a wildcard pattern, in the order of registration."""
        return tuple(name for name in self._values if fnmatchcase(name, pattern))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def find(self, name: str) -> T:
        """Returns the value of a registered name, or imports ``package.module:name``.

        Raises:
            UserError: If the name is unknown; offers the nearest known name. The type is the registry's ``error``.
        """
        if name in self._values:
            return self._values[name]
        if ":" in name:
            imported: T = import_named(name, f"{self.setting}: {self.kind}", self.error)
            return imported
        raise self.error(
            f"{self.setting}: there is no {self.kind} {name!r}; {suggest(name, self._values)}; "
            "or package.module:name for your own."
        )


def import_named(name: str, what: str, error: type[UserError] = ConfigError) -> Any:
    """Imports ``package.module:name``.

    Args:
        name: The module and, after a colon, the name within the module, which may have dots.
        what: The setting and the kind of value, for messages, for example ``criterion.name: criterion``.
        error: The type of error to raise.

    Raises:
        UserError: If the module cannot be imported or has no such name. The type is ``error``.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise error(f"{what} {name!r}: write it as package.module:name, for example mine.cuts:build")
    try:
        value: Any = importlib.import_module(module)
    except Exception as problem:  # the import runs the user's code, which may raise anything
        raise error(
            f"{what} {name!r}: module {module!r} cannot be imported ({type(problem).__name__}: {problem}); "
            "install it, or add its folder to PYTHONPATH"
        ) from problem
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise error(f"{what} {name!r}: {attribute!r} does not exist in module {module!r}")
        value = getattr(value, part)
    return value
