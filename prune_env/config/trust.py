"""Trust: which code the settings of a run may name.

A setting such as ``model.name`` may name code as ``package.module:callable``, which is imported and called. The files
and the command line that users give are their own word. A run directory may come from somebody else, so the code that
its settings name is imported only if the user trusts it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel

from prune_env.common.errors import ConfigError
from prune_env.common.text import shorten


@dataclass(frozen=True)
class RunsCode:
    """Marks a setting whose value may run code: ``Annotated[str, OWN_CODE]``.

    Attributes:
        does: What the value does, for messages.
        means: Whether a value runs code.
        several: Whether the setting is a list of such values.
    """

    does: str
    means: Callable[[str], bool]
    several: bool = False


OWN_CODE = RunsCode("imports and calls Python code", lambda value: ":" in value)

OWN_LOG = RunsCode("sends the log out of the run", lambda value: value != "csv", several=True)

OWN_CLUSTER = RunsCode("lets the machines of a cluster run code here", lambda value: value not in ("auto", "local"))


@dataclass(frozen=True)
class Trust:
    """The code that the settings of a run may name.

    Attributes:
        names: Values that the user gave.
        everything: Whether the user trusts whoever wrote the run.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, *settings: BaseModel) -> Self:
        """Trusts what the user's own settings name."""
        found = [code_in(type(own), own.model_dump()).values() for own in settings]
        return cls(frozenset(value for values in found for value, _ in values))

    def also(self, names: Iterable[str]) -> "Trust":
        """Trusts further values that the user gave."""
        return Trust(self.names | frozenset(names), self.everything)

    def check(self, root: type[BaseModel], document: Mapping[str, Any], source: str) -> None:
        """Refuses settings that name code that the user does not trust; imports nothing.

        Args:
            root: The class of the settings.
            document: Sections of keys.
            source: The origin of the settings, for the message.

        Raises:
            ConfigError: Names each key, its value and what it does.
        """
        if self.everything:
            return
        found = {key: each for key, each in code_in(root, document).items() if each[0] not in self.names}
        if found:
            lines = [f"  {key}: {shorten(repr(value))} {mark.does}" for key, (value, mark) in found.items()]
            first = next(f"{key}={value}" for key, (value, _) in found.items())
            raise _refusal(source, lines, first)

    def check_texts(
        self, root: type[BaseModel], document: Mapping[str, Any], source: str, given: Iterable[str] = ()
    ) -> None:
        """Refuses settings that read environment variables, or name an address from which a library may download.

        The settings that a run records hold neither: variables are replaced before they are written. What `code_keys`
        names is left to `check`.

        Args:
            root: The class of the settings.
            document: Sections of keys, before variables are replaced.
            source: The origin of the settings, for the message.
            given: Keys that the user gave.

        Raises:
            ConfigError: Names each key, its text and what it does.
        """
        if self.everything:
            return
        code, own = code_keys(root), tuple(given)
        found = {
            key: text
            for key, text in _texts("", document)
            if not any(key == one or key.startswith(f"{one}.") for one in own)
            and (_reads_variables(text) or ("://" in text and key not in code))
        }
        if found:
            does = {True: "reads environment variables", False: "is an address on a network"}
            lines = [f"  {key}: {shorten(repr(text))} {does[_reads_variables(text)]}" for key, text in found.items()]
            raise _refusal(source, lines, f"{next(iter(found))}=...")


def _refusal(source: str, lines: Iterable[str], example: str) -> ConfigError:
    advice = (
        "If you trust the author of the run, give --trust (in Python trust=EVERYTHING), or give the setting "
        f"yourself: {shorten(example)}"
    )
    return ConfigError("\n".join([f"{source} belongs to a run and is not trusted:", *lines, advice]))


def _reads_variables(text: str) -> bool:
    return "${" in text.replace("$${", "")


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """All texts of a document with their keys."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(f"{key}.{name}" if key else str(name), part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(key, part)


NOTHING = Trust()
"""No code from the settings of a run."""

EVERYTHING = Trust(everything=True)
"""All code that the settings name."""


def code_in(root: type[BaseModel], document: Mapping[str, Any]) -> dict[str, tuple[str, RunsCode]]:
    """Returns the values that run code, each with its mark, by key.

    Args:
        root: The class of the settings.
        document: Sections of keys, which need not be valid.
    """
    found = {}
    for key, mark in code_keys(root).items():
        section, _, name = key.partition(".")
        given = document.get(section)
        value = given.get(name) if isinstance(given, Mapping) else None
        if mark.several and isinstance(value, list | tuple):
            if any(isinstance(one, str) and mark.means(one) for one in value):
                found[key] = json.dumps(value), mark
        elif isinstance(value, str) and mark.means(value):
            found[key] = value, mark
    return found


def code_keys(root: type[BaseModel]) -> dict[str, RunsCode]:
    """Returns the marks of all settings that may run code, by key."""
    sections = {
        name: field.annotation
        for name, field in root.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    return {
        f"{name}.{key}": mark
        for name, section in sections.items()
        for key, entry in section.model_fields.items()
        for mark in entry.metadata
        if isinstance(mark, RunsCode)
    }
