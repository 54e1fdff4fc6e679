"""Records: files of JSON, or of JSON lines, that are checked field by field when they are read.

A file carries a digest of its contents, which finds damage and careless changes [our choice]. The digest is no
signature: whoever changes a file can write a new one. Files of earlier releases have no digest; their fields are
checked all the same.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from prune_env.common.errors import RunError, UserError
from prune_env.common.files import append_line, whole_lines
from prune_env.common.text import quoted, shorten

DIGEST = "digest"
"""The key of the digest in a file."""


class Record(BaseModel):
    """The base of all records: unknown fields are refused, types are not converted, fields cannot be assigned.

    Attributes:
        raises: The type of error of a damaged file.
        remedy: What to do about a damaged file, for messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    raises: ClassVar[type[UserError]] = RunError
    remedy: ClassVar[str] = "Restore the file from a copy, or start a new run."

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Returns the document of an earlier release in the form of this release.

        Raises:
            ValueError: If no release that is read has written it; says why.
        """
        return document

    def as_record(self) -> dict[str, Any]:
        """Returns the record as plain values for JSON."""
        return self.model_dump(mode="json", by_alias=True)


R = TypeVar("R", bound=Record)


def renamed(kind: type[R], **names: str) -> type[R]:
    """Returns a class of records in whose files some fields have other names, such as the task's name for its quality.

    Args:
        kind: The class of records.
        names: The name in files, by field.
    """
    found: type[R] = _renamed(kind, tuple(names.items()))
    return found


@cache
def _renamed(kind: type[Record], names: tuple[tuple[str, str], ...]) -> Any:
    own = dict(names)
    config = ConfigDict(alias_generator=lambda field: own.get(field, field))
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "model_config": config})


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns contents with their digest."""
    return {**content, DIGEST: digest_of(content)}


def digest_of(content: Any) -> str:
    """Returns a hash of JSON values: the first 32 hexadecimal digits of SHA-256."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def to_file(record: Record) -> bytes:
    """Returns the bytes of a file of one record."""
    text = json.dumps(sealed(record.as_record()), indent=2, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def append_record(path: Path, content: Mapping[str, Any]) -> None:
    """Appends contents with their digest as one line to a file of JSON lines.

    Args:
        path: The file. It is created if it is missing.
        content: Values that JSON can hold.

    Raises:
        OSError: The file cannot be written. At worst an unfinished last line remains, which `read_records` ignores.
        ValueError: The contents hold a number that is not finite. Nothing is written.
    """
    append_line(path, json.dumps(sealed(content), allow_nan=False, ensure_ascii=False))


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Reads a file of JSON lines; ignores a last line that a kill or a full disk left unfinished.

    Args:
        path: The file.
        kind: The class of the records.

    Returns:
        The records in order; an empty list if there is no file.

    Raises:
        UserError: As `read_record`; names the line, too.
    """
    records = []
    for number, line in enumerate(whole_lines(path), start=1):
        where = f"{str(path)!r}, line {number}"
        try:
            document = strict_json(line)
        except (ValueError, RecursionError):
            document = None
        records.append(checked(document, kind, where))
    return records


def read_record(path: Path, kind: type[R]) -> R:
    """Reads a file of one record.

    Args:
        path: The file.
        kind: The class of the record.

    Raises:
        UserError: If the file is missing, is no JSON, or a field is wrong; names the file, the field, the value, what
            is allowed and what to do. The type is the record's ``raises``.
    """
    return checked(read_json(path, kind), kind, repr(str(path)))


def read_json(path: Path, kind: type[Record] = Record) -> Any:
    """Reads a file of JSON as plain values; checks nothing.

    Raises:
        UserError: If the file is missing or is no JSON. The type is the ``raises`` of ``kind``.
    """
    try:
        return strict_json(path.read_bytes())
    # Deep nesting and integers of many digits are errors, too.
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or shorten(str(error))
        raise kind.raises(f"{str(path)!r} cannot be read: {reason}. {kind.remedy}") from None


def strict_json(data: bytes) -> Any:
    """Reads JSON in which no object has a key twice: of two values, readers disagree on which counts.

    Raises:
        ValueError: If the bytes are no such JSON.
    """
    return json.loads(data.decode("utf-8"), object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quoted(key)} stands twice in one object")
        found[key] = value
    return found


def checked(document: Any, kind: type[R], where: str, extra: Any = None) -> R:
    """Checks plain values against a record and against their digest.

    Args:
        document: The values, with or without a digest.
        kind: The class of the record.
        where: The file, and the place in it, for messages.
        extra: Further contents that the digest covers.

    Raises:
        UserError: As `read_record`.
    """
    if not isinstance(document, dict):
        raise kind.raises(f"{where} is damaged: it is not a JSON object. {kind.remedy}")
    content = {key: value for key, value in document.items() if key != DIGEST}
    try:
        # JSON, so that lists are read as tuples, and mappings as dataclasses.
        record = kind.model_validate_json(json.dumps(kind.upgraded(content)))
    except (ValueError, RecursionError) as error:
        raise kind.raises(f"{where} is damaged: {first_problem(error)}. {kind.remedy}") from None
    check_digest(document, where, kind, extra)
    return record


def check_digest(document: Mapping[str, Any], where: str, kind: type[Record] = Record, extra: Any = None) -> None:
    """Refuses values whose digest, if they have one, is another; arguments as `checked`."""
    content = {key: value for key, value in document.items() if key != DIGEST}
    expected = digest_of(content if extra is None else [content, extra])
    if DIGEST in document and document[DIGEST] != expected:
        raise kind.raises(
            f"{where} is damaged or was changed: {DIGEST} is {shorten(repr(document[DIGEST]))}, but its contents have "
            f"{expected!r}. {kind.remedy}"
        )


def first_problem(error: Exception) -> str:
    """Returns the first problem that pydantic reports, on one line: field, given value, rule."""
    if not isinstance(error, ValidationError):
        return shorten(str(error), 240)
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    given = "" if problem["type"] in ("missing", "value_error") else f"given {shorten(repr(problem['input']))}; "
    return (f"{shorten(place)}: " if place else "") + given + shorten(rule_of(problem), 240)


def rule_of(problem: ErrorDetails) -> str:
    """Returns what pydantic asks for, in words."""
    if problem["type"] == "value_error":  # the message of a validator of ours
        return str(problem["ctx"]["error"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return "unknown field"
    return str(problem["msg"]).replace("Input should", "must")
