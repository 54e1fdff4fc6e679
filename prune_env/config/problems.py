"""Turns pydantic's errors about settings into messages for the user."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prune_env.common.errors import nearest, suggest

_UNKNOWN = ("extra_forbidden", "invalid_key")
_SHOWN_PROBLEMS = 7  # with their meanings, these fit one screen
_SHOWN_CHARACTERS = 60


OVERRIDES = "overrides (key.path=value)"
"""The origin of settings that were given beside the document, in messages."""


def describe_problems(
    error: ValidationError, root: type[BaseModel], source: str, overridden: Collection[tuple[str, ...]] = ()
) -> str:
    """Describes all problems of a document, one per line: key, given value, allowed values.

    Args:
        error: The error that pydantic raised.
        root: The model of the document: sections of keys.
        source: The origin of the document.
        overridden: The keys that overrides gave (`override_path`).

    Returns:
        The message: the origin of the problems, then the problems, at most 7; each section's known keys are listed
        once.
    """
    # Misspelt keys first: they are the likeliest cause of the other problems.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] not in _UNKNOWN)
    lines: dict[str, list[str]] = {}
    listed: set[type[BaseModel]] = set()
    for problem in problems[:_SHOWN_PROBLEMS]:
        origin = OVERRIDES if is_overridden(problem["loc"], overridden) else source
        lines.setdefault(origin, []).append(_line(problem, root, listed))
    more = len(problems) - _SHOWN_PROBLEMS
    parts = ["\n  ".join([f"{origin}:", *own]) for origin, own in lines.items()]
    return "\n".join([*parts, *([f"  and {more} more"] if more > 0 else [])])


def is_overridden(place: Sequence[str | int], overridden: Collection[tuple[str, ...]]) -> bool:
    """Whether an override gave the value at a place: the value itself, what holds it, or a part of it."""
    keys = tuple(map(str, place))
    return any(path[: len(keys)] == keys[: len(path)] for path in overridden)


def _line(problem: Mapping[str, Any], root: type[BaseModel], listed: set[type[BaseModel]]) -> str:
    """One problem in words; ``listed`` holds the sections whose keys an earlier line lists."""
    place: Sequence[str | int] = problem["loc"]
    section, field = _find(place, root)
    key = _key(place, field)
    if problem["type"] in _UNKNOWN:
        known, name = section or root, str(place[-1])
        if known in listed:
            near = nearest(name, known.model_fields)
            return f"{key}: unknown key" + (f"; did you mean {near!r}?" if near else "")
        listed.add(known)
        return f"{key}: unknown key; {suggest(name, known.model_fields)}"
    meaning = f" ({field.description})" if field and field.description else ""
    if problem["type"] == "missing":
        return f"{key}: required, and not given{meaning}"
    return f"{key}: given {_shown(problem['input'])}; {_rule(problem)}{meaning}"


def _find(place: Sequence[str | int], root: type[BaseModel]) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The section and the field of a location, each None if the location has none."""
    field = root.model_fields.get(str(place[0]))
    annotation = field.annotation if field else None
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None, field
    return annotation, annotation.model_fields.get(str(place[1])) if len(place) > 1 else None


def _key(place: Sequence[str | int], field: FieldInfo | None) -> str:
    """The key path as the user writes it: section, key and at most one entry of the key's value."""
    depth = 3 if field else 2  # the rest of the location is internal to pydantic
    key = ".".join(str(part) for part in place[:2])
    for part in place[2:depth]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key


def _rule(problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "value_error":  # the message of a validator in this package
            return str(problem["ctx"]["error"])
        case "model_type" | "dict_type":
            return "must be a mapping of keys"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "string_type":
            return "must be text; put quotes around it"
        case "string_too_short" | "too_short":
            return "must not be empty"
        case "invalid-json-value":
            return "must be text, a number, true, false, null, or a list or mapping of these"
    return str(problem["msg"]).replace("Input should", "must")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)  # close to the YAML notation
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
