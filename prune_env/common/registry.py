"""Registries: values by name, filled by a decorator, read by configurations and commands.

All registries behave alike. A name is registered once. An unknown name is refused, with the nearest known name in the
message. ``package.module:callable`` is accepted wherever a name is, so that users need not register their own values.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from prune_env.common.errors import ConfigError, UserError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Values of one kind by name.

    Args:
        kind: The word for a value in messages, for example ``criterion``.
        setting: The configuration key that selects a value, for example ``criterion.name``.
        error: The type of error that an unknown name raises.
        adopt: Turns an imported object into a value, given ``package.module:callable`` and the object, or raises a
            `UserError`; None takes the object itself.
        documented: Gives the object that holds a value's docstring; None for the value itself.
        home: The package whose import registers the library's own values, for a registry that lies outside of it. It
            is imported when the registry is first read.

    Example:
        >>> shapes = Registry[int]("shape", "shape.name")
        >>> @shapes.register("square")
        ... def square(side: int) -> int:
        ...     "The area of a square."
        ...     return side * side
        >>> shapes.names()
        ('square',)
        >>> shapes.find("square")(3)
        9
        >>> shapes.summaries()
        {'square': 'The area of a square.'}
    """

    def __init__(
        self,
        kind: str,
        setting: str,
        error: type[UserError] = ConfigError,
        adopt: Callable[[str, Any], T] | None = None,
        documented: Callable[[T], object] | None = None,
        home: str | None = None,
    ) -> None:
        self.kind = kind
        self.setting = setting
        self.error = error
        self._adopt = adopt
        self._documented = documented
        self._home = home
        self._registered: dict[str, T] = {}
        self._lent: ContextVar[Mapping[str, T]] = ContextVar(f"lent {kind}", default=MappingProxyType({}))

    @property
    def _values(self) -> dict[str, T]:
        """The registered values, the library's own among them."""
        if self._home is not None:
            home, self._home = self._home, None
            importlib.import_module(home)
        return self._registered

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers a value under a name.

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

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Forgets at the end what was registered within, for tests."""
        before = dict(self._values)
        try:
            yield
        finally:
            self._registered = before

    @contextmanager
    def lending(self, name: str, value: T) -> Iterator[None]:
        """Gives a name to a value within the block, before any other value of this name; other threads do not see it.

        Example:
            >>> words = Registry[str]("word", "word.name")
            >>> with words.lending("mine", "hello"):
            ...     words.find("mine")
            'hello'
            >>> "mine" in words
            False
        """
        token = self._lent.set({**self._lent.get(), name: value})
        try:
            yield
        finally:
            self._lent.reset(token)

    def names(self, pattern: str = "*") -> tuple[str, ...]:
        """Returns the registered names that match a wildcard pattern, in any case, in the order of registration."""
        return tuple(name for name in self._values if fnmatchcase(name.lower(), pattern.lower()))

    def values(self) -> tuple[T, ...]:
        """Returns the registered values, in the order of registration."""
        return tuple(self._values.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._lent.get()

    def find(self, name: str, setting: str | None = None) -> T:
        """Returns the value of a registered name, or imports ``package.module:callable``.

        Args:
            name: A registered name, or where to import the user's own value from.
            setting: Where the name was given, for messages; None for the registry's own key.

        Raises:
            UserError: If the name is unknown; offers the nearest known name. The type is the registry's ``error``.
        """
        if name in self._lent.get():
            return self._lent.get()[name]
        if name in self._values:
            return self._values[name]
        if ":" not in name:
            raise self.unknown(name, setting)
        imported: T = import_named(name, f"{setting or self.setting}: {self.kind}", self.error)
        return imported if self._adopt is None else self._adopt(name, imported)

    def unknown(
        self, name: str, setting: str | None = None, known: Iterable[str] | None = None, also: str = ""
    ) -> UserError:
        """Returns the error for an unknown name.

        Args:
            name: The name that was given.
            setting: Where the name was given; None for the registry's own key.
            known: All known names; None for the registered names.
            also: Further ways to name a value, as words that end with "or".
        """
        nearest = suggest(name, self._values if known is None else known)
        return self.error(
            f"{setting or self.setting}: there is no {self.kind} {name!r}; {nearest}; "
            f"or {also}package.module:callable for your own."
        )

    def summaries(self) -> dict[str, str]:
        """Returns the first line of each registered value's docstring, by name; empty without a docstring."""
        documented = self._documented or (lambda value: value)
        return {
            name: (inspect.getdoc(documented(value)) or "").partition("\n")[0] for name, value in self._values.items()
        }


def class_with(setting: str, base: str, *attributes: str) -> Callable[[str, Any], Any]:
    """Returns an ``adopt`` for a `Registry` that takes only classes with some attributes.

    Args:
        setting: The configuration key that selects a value.
        base: The class or protocol that has the attributes, for messages.
        attributes: Names of attributes and methods.
    """

    def adopt(name: str, value: Any) -> Any:
        missing = [each for each in attributes if not hasattr(value, each)]
        if not isinstance(value, type) or missing:
            lacks = f"it has no {', '.join(missing)}" if missing else "it is no class"
            raise ConfigError(f"{setting}: {name!r} must be a class like {base}, and {lacks}.")
        return value

    return adopt


def search_working_directory() -> None:
    """Lets Python find modules in the working directory, after all other places.

    Only for a module that the user names: otherwise a file such as ``sklearn.py`` there would take a package's place.
    """
    # The working directory may have been deleted.
    with suppress(OSError):
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)


def import_named(name: str, what: str, error: type[UserError] = ConfigError) -> Any:
    """Imports ``package.module:callable``.

    Args:
        name: The module and, after a colon, the name within the module, which may have dots.
        what: The setting and the kind of value, for messages, for example ``criterion.name: criterion``.
        error: The type of error to raise.

    Raises:
        UserError: If the module cannot be imported, has no such name, or the named object is not callable. The type
            is ``error``.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise error(f"{what} {name!r}: write it as package.module:callable, for example mine.cuts:build")
    search_working_directory()
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
    if not callable(value):
        raise error(
            f"{what} {name!r}: {attribute!r} is of type {type(value).__name__} and is not callable; "
            "name a function or a class"
        )
    return value
