"""Reads a YAML file, overrides and environment variables into one plain mapping.

OmegaConf and pydantic-settings would do the same, but they do not offer the nearest key for a misspelt one.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prune_env.common.errors import ConfigError, suggest
from prune_env.common.text import quoted
from prune_env.config.protection import spelled_out
from prune_env.config.shipped import find_config, shipped_configs

# "$${" is an escaped "${"; any other "${" must begin a complete reference.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?")

LARGEST_FILE, MOST_VALUES, DEEPEST, MOST_REFERENCES = 200_000, 5_000, 20, 100
"""Limits of a document [our choice]: bytes, values (those of an alias count each time), depth, and references in a
text. Twenty times what a configuration needs, and little enough to be read in a second."""

LONGEST_NUMBER, LARGEST_INTEGER = 40, 2**63 - 1
"""Limits of a number [our choice]: its characters, and the size of an integer, which arrays hold in 64 bits."""

KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp")
"""The kinds of values in a document, as YAML names them. A date is no setting, but a text in a message."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Args:
        path: The file, UTF-8, or the name of a shipped one (`prune_env.config.shipped`).

    Returns:
        The mapping, as plain Python values.

    Raises:
        ConfigError: The file is missing, cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        with find_config(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode()
    except FileNotFoundError:
        beside = {other.stem: other.name for other in path.parent.glob("*.yaml")}
        known = {**{name: name for name in shipped_configs()}, **beside}.values()
        raise ConfigError(f"config file {str(path)!r} does not exist; {suggest(path.name, known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"config file {str(path)!r} cannot be read: {reason}") from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"config file {str(path)!r} is no config file: it is larger than {LARGEST_FILE:,} bytes")
    document = _parse(text, f"config file {str(path)!r}")
    if not isinstance(document, dict):
        kind = "empty" if document is None else f"a {type(document).__name__}"
        raise ConfigError(f"config file {str(path)!r} is {kind}; it must be a mapping of keys, for example seed: 0")
    return document


def override_path(override: str) -> tuple[str, ...]:
    """The keys that an override ``key.path=value`` gives: section, key and, for a mapping, one key in it."""
    return tuple(override.partition("=")[0].strip().split(".", 2))


def with_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Applies overrides to a document; of two overrides of one key, the later one counts.

    Args:
        document: Sections of keys; not changed.
        overrides: Texts ``key.path=value`` with a YAML value. After section and key, the rest of the path is one key:
            ``env.protect.layer1.0.conv1=why`` protects the module ``layer1.0.conv1``.

    Returns:
        A new document.

    Raises:
        ConfigError: An override has no ``=`` or its value is not YAML.
    """
    result = copy.deepcopy(dict(document))
    for override in overrides:
        _, equals, text = override.partition("=")
        keys = override_path(override)
        if not equals or not all(keys):
            raise ConfigError(f"override {quoted(override)}: write key.path=value, for example search.evaluations=400")
        target = result
        for key in keys[:-1]:
            inner = spelled_out(target.get(key))
            target[key] = inner if isinstance(inner, dict) else {}
            target = target[key]
        target[keys[-1]] = _parse(text, f"override {quoted(override)}")
    return result


def with_environment(document: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Replaces ``${VAR}`` and ``${VAR:-default}`` in text values by environment variables.

    As in a shell, the default replaces a variable that is unset or empty. ``$${`` gives ``${``.

    Args:
        document: Sections of keys; not changed.
        environment: The variables.

    Returns:
        A new document.

    Raises:
        ConfigError: A variable without a default is not set, or a reference is malformed. The message names the keys.
    """
    problems: dict[str, None] = {}

    def tell(problem: str) -> str:
        problems[problem] = None
        return ""

    def fill(key: str, text: str) -> str:
        if text.count("${") > MOST_REFERENCES:
            return tell(f"{key}: {quoted(text)} holds more than {MOST_REFERENCES} references to variables")

        def value_of(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match[0] == "$${":
                return "${"
            if name is None:
                return tell(f"{key}: {quoted(text)} is malformed; write ${{VAR}}, ${{VAR:-default}}, or $${{ for ${{")
            value = environment.get(name)
            if default is not None:
                return value or default
            if value is None:
                return tell(
                    f"{key}: environment variable {name} is not set; set it, override {key}=..., "
                    f"or write ${{{name}:-default}}"
                )
            return value

        return _REFERENCE.sub(value_of, text)

    filled = _map_text("", document, fill)
    if problems:
        raise ConfigError("\n".join(problems))
    return dict(filled)


def without_references(document: Mapping[str, Any]) -> dict[str, Any]:
    """Escapes text that looks like a reference, so that reading the document gives the same text."""
    return dict(_map_text("", document, lambda _, text: text.replace("${", "$${")))


def _map_text(key: str, value: Any, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, Mapping):
        return {name: _map_text(f"{key}.{name}" if key else str(name), part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [_map_text(key, part, change) for part in value]
    return value


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{where} is not YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-01
        raise ConfigError(f"{where} is not YAML: {str(error).splitlines()[0]}") from None


class _Loader(yaml.SafeLoader):
    """Refuses, before any value is made, documents that are too deep or too large and keys that are given twice.

    PyYAML takes the last of two equal keys. An alias stands for a value and may stand in it, too.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value; counts values and their depth."""
        self.depth, self.values = getattr(self, "depth", 0) + 1, getattr(self, "values", 0) + 1
        if self.depth > DEEPEST:
            raise self._refusal(f"it is nested more than {DEEPEST} levels deep", self._place())
        if self.values > MOST_VALUES:
            raise self._refusal(f"it holds more than {MOST_VALUES:,} values", self._place())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None:
            self._refuse_kind(node)
        return node

    def _refuse_kind(self, node: yaml.Node) -> None:
        """Refuses what no setting is, such as bytes and sets, and numbers that Python does not read at once."""
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in KINDS:
            raise self._refusal(
                f"a value of the kind {quoted(kind)} is no setting; texts, numbers, true, false, null, lists and "
                "mappings are",
                node.start_mark,
            )
        if kind not in ("int", "float") or not isinstance(node, yaml.ScalarNode):
            return
        if len(node.value) > LONGEST_NUMBER:
            raise self._refusal(f"a number has more than {LONGEST_NUMBER} characters", node.start_mark)
        if ":" in node.value:
            raise self._refusal(
                f"{node.value} is a number to the base of 60 in YAML; put a text into quotes", node.start_mark
            )
        if kind == "int" and abs(self.construct_yaml_int(node)) > LARGEST_INTEGER:
            raise self._refusal(f"the number {node.value} is beyond {LARGEST_INTEGER:,}", node.start_mark)

    def _place(self) -> Any:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def get_single_node(self) -> yaml.Node | None:
        """The whole document, checked."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            self._size(node, {})
        return node

    def _size(self, node: yaml.Node, sizes: dict[yaml.Node, int | None]) -> int:
        """The number of values in a value, those of an alias counted each time; ``sizes`` holds those known."""
        if node in sizes:
            known = sizes[node]
            if known is None:
                raise self._refusal("an alias stands for the value that it stands in", node.start_mark)
            return known
        sizes[node] = None
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            self._refuse_repeated(node)
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        size = 1 + sum(self._size(part, sizes) for part in parts)
        if size > MOST_VALUES:
            raise self._refusal(f"it holds more than {MOST_VALUES:,} values", node.start_mark)
        sizes[node] = size
        return size

    def _refuse_repeated(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (name := (key.tag, key.value)) in seen:
                    raise self._refusal(f"the key {quoted(key.value)} is given twice", key.start_mark)
                seen.add(name)

    def _refusal(self, problem: str, place: Any) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=place)
