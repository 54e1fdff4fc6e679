"""What pydantic finds wrong with a run's settings, in the user's words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prune_env.common.errors import suggest

_UNKNOWN = ("extra_forbidden", "invalid_key")
_SHOWN_PROBLEMS = 15
_SHOWN_CHARACTERS = 60


def describe_problems(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """All problems of a document, one line each: key, what was given, what is allowed.

    Args:
        error: What pydantic raised.
        root: The model that the document was checked against: sections of keys.
        source: Where the document came from, for the first line.

    Returns:
        A text that fits on a screen.
    """
    # A misspelt key is the likeliest reason for the rest, so it goes first.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] not in _UNKNOWN)
    lines = [_line(problem, root) for problem in problems]
    more = len(lines) - _SHOWN_PROBLEMS
    if more > 0:
        lines = [*lines[:_SHOWN_PROBLEMS], f"and {more} more"]
    return "\n  ".join([f"{source}:", *lines])


def _line(problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    place: Sequence[str | int] = problem["loc"]
    section, field = _find(place, root)
    key = _key(place, field)
    if problem["type"] in _UNKNOWN:
        known = (section or root).model_fields
        return f"{key}: unknown key; {suggest(str(place[-1]), known)}"
    meaning = f" ({field.description})" if field and field.description else ""
    if problem["type"] == "missing":
        return f"{key}: required, and not given{meaning}"
    return f"{key}: given {_shown(problem['input'])}; {_rule(problem)}{meaning}"


def _find(place: Sequence[str | int], root: type[BaseModel]) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The section and the field that a place lies in, each None where it lies in none."""
    field = root.model_fields.get(str(place[0]))
    annotation = field.annotation if field else None
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None, field
    return annotation, annotation.model_fields.get(str(place[1])) if len(place) > 1 else None


def _key(place: Sequence[str | int], field: FieldInfo | None) -> str:
    """The key path as the user would write it: section, key and at most one entry of the key's value."""
    depth = 3 if field else 2  # what follows names pydantic's own steps into the value
    key = ".".join(str(part) for part in place[:2])
    for part in place[2:depth]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key


def _rule(problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "value_error":  # raised by a validator of ours, in words already
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
    text = json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)  # near enough to what YAML shows
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
