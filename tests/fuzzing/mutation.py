"""Mutants: changes of bytes, and of values in a document whose form stays whole."""

import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import yaml

HOSTILE: Sequence[Any] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e308, 1e-320, float("nan"),
    float("inf"), "", " ", "x" * 5_000, "\x1b[31m\x07", "[/b]", "\u202e", "${A:-", "$x$", "../../x", "/etc/passwd",
    "json:loads", "NaN", "1", [], {}, [[]], [0] * 1_000, {"a": {"b": {}}},
)  # fmt: skip
"""Values that a field does not expect."""


@dataclass(frozen=True)
class Form:
    """A file's form: how its document is read and written, so that a mutant gets past the parser.

    Attributes:
        decode: From bytes to values: dicts, lists, texts, numbers and bytes.
        encode: Back to bytes.
        tokens: Bytes with a meaning in this form, to be inserted anywhere.
    """

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    tokens: Sequence[bytes] = ()


def mutant(data: bytes, form: Form | None, random: random.Random) -> bytes:
    """Changes a file in one to three places: values where it has a form, else bytes."""
    if form is not None and random.random() < 0.7:
        holder = [form.decode(data)]
        for _ in range(random.choice((1, 1, 2, 3))):
            _change_value(holder, random)
        try:
            return form.encode(holder[0])
        except Exception:
            pass  # a value that this form cannot hold
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _change_bytes(data, form.tokens if form else (), random)
    return data


def _change_bytes(data: bytes, tokens: Sequence[bytes], random: random.Random) -> bytes:
    if not data:
        return random.randbytes(8)
    start = random.randrange(len(data))
    end = min(len(data), start + random.choice((1, 2, 4, 16, 256)))
    way = random.randrange(8 if tokens else 6)
    if way == 0:
        return data[:start]
    if way == 1:
        return data[:start] + bytes([data[start] ^ (1 << random.randrange(8))]) + data[start + 1 :]
    if way == 2:
        return data[:start] + data[end:]
    if way == 3:
        return data[:end] + data[start:]
    if way == 4:
        return data[:start] + random.randbytes(end - start) + data[end:]
    if way == 5:
        return data[:start] + random.choice((b"\x00", b"\xff", b"\x7f\xff", b"9" * 20, b"-")) + data[end:]
    return data[:start] + random.choice(tokens) + data[start:]


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """All containers with a key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((value, key))
        _places(item, found)
    return found


def _change_value(holder: list[Any], random: random.Random) -> None:
    """Changes one value of a document in place."""
    places = _places(holder, [])
    container, key = random.choice(places)
    other, place = random.choice(places)
    value, way = container[key], random.randrange(9)
    if way == 0 and container is not holder:
        del container[key]
    elif way == 1 and isinstance(container, dict):
        container[random.choice(("", "x", "\x1b[2J", str(place)))] = container.pop(key)
    elif way == 2:
        container[key] = json.loads(json.dumps(other[place], default=repr))
    elif way == 3 and other is not holder and container is not holder:
        # Copies: a value that is put into a part of itself would have no end.
        container[key], other[place] = deepcopy(other[place]), deepcopy(value)
    elif isinstance(value, bytes):
        container[key] = _change_bytes(value, (), random)
    elif way in (4, 5) and isinstance(value, (int, float)):
        container[key] = random.choice((value + 1, value - 1, -value, 2 * value, float(value), str(value), [value]))
    elif way in (4, 5) and isinstance(value, list):
        changed = (
            value[::-1],
            value[:-1],
            value + value,
            value[1:],
            [*value, deepcopy(random.choice(HOSTILE))],
            sorted(value, key=repr),
        )
        container[key] = random.choice(changed)
    elif way in (4, 5) and isinstance(value, str):
        container[key] = random.choice(
            (value[:-1], value + "x", value.upper(), value * 50, f"{value}\x1b[1m", value[::-1])
        )
    else:
        container[key] = deepcopy(random.choice(HOSTILE))


def without_digests(data: bytes, form: Form) -> bytes:
    """A file as earlier releases wrote it: without digests, so that a mutant gets past them."""
    return form.encode(_without_digests(form.decode(data)))


def _without_digests(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_digests(item) for key, item in value.items() if key != "digest"}
    return [_without_digests(item) for item in value] if isinstance(value, list) else value


def _folded(value: Any) -> Any:
    """Documents in texts of a document become text again."""
    if isinstance(value, dict) and set(value) == {"json"}:
        return json.dumps(_folded(value["json"]))
    if isinstance(value, dict):
        return {key: _folded(item) for key, item in value.items()}
    return [_folded(item) for item in value] if isinstance(value, list) else value


def _unfolded(value: Any) -> Any:
    """Documents in texts of a document, such as the metadata of safetensors, as values."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        return {"json": json.loads(value)}
    return {key: _unfolded(item) for key, item in value.items()} if isinstance(value, dict) else value


def _read_safetensors(data: bytes) -> Any:
    length = struct.unpack("<Q", data[:8])[0]
    return {"header": _unfolded(json.loads(data[8 : 8 + length])), "body": data[8 + length :]}


def _write_safetensors(document: Any) -> bytes:
    header = json.dumps(_folded(document["header"])).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + document["body"]


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _write_zip(members: Any) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target.getvalue()


def _read_png(data: bytes) -> Any:
    chunks, place = [], 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append([data[place + 4 : place + 8], data[place + 8 : place + 8 + length]])
        place += 12 + length
    return chunks


def _write_png(chunks: Any) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


def _read_words(data: bytes) -> Any:
    return re.findall(r"<[^>]*>|[^<>\s]+|\s+|.", data.decode())


JSON = Form(
    json.loads,
    lambda value: json.dumps(value).encode(),
    (b"[" * 3_000, b'{"a":' * 3_000, b"NaN", b"1e999", b'"\\ud800"', b",", b"null", b"9" * 5_000),
)
LINES = Form(
    lambda data: [json.loads(line) for line in data.splitlines()],
    lambda lines: b"".join(json.dumps(line).encode() + b"\n" for line in lines),
    (b"\n", b"{}\n", b"[" * 3_000, b"NaN", b'{"number": 0}\n'),
)
YAML = Form(
    yaml.safe_load,
    lambda value: yaml.safe_dump(value).encode(),
    (
        *(b"&a [*a]", b"*a", b"<<: *a\n", b"{a: &a [x,x], b: &b [*a,*a]}", b"seed: 1\n", b"\t", b"? ", b"2024-13-45"),
        *(b"!!python/name:os.system ", b"- !!binary x\n", b"!!set {a}", b"${A:-", b"${A:-" * 1_000, b"- " * 200),
    ),
)
SAFETENSORS = Form(_read_safetensors, _write_safetensors)
ZIP = Form(_read_zip, _write_zip)
PNG = Form(_read_png, _write_png)
WORDS = Form(
    _read_words,
    lambda words: "".join(words).encode(),
    (b"<!DOCTYPE a [<!ENTITY b 'bbbbbb'>]>", b"&b;", b"<object>", b"nan", b"1e999", b"-7", b"<a>" * 2_000, b"\xff"),
)
