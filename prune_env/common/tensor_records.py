"""Tensor records: safetensors files whose header is a record; the digest covers the record and the tensors."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prune_env.common.records import DIGEST, R, Record, checked, digest_of, strict_json
from prune_env.common.text import shorten

HEADER = "record"
"""The header's entry that holds the record. One entry: safetensors writes several in an order that varies."""

Earlier = Callable[[Mapping[str, str]], Mapping[str, Any]]
"""Makes the document of a record from the header of an earlier release."""


def to_tensor_file(content: Mapping[str, Any], tensors: Mapping[str, Tensor], entry: str = HEADER) -> bytes:
    """Returns the bytes of a file.

    Args:
        content: The record as plain values.
        tensors: The tensors by name.
        entry: The header's entry for the record.

    Raises:
        ValueError: If the record holds a number that is not finite.
    """
    document = {**content, DIGEST: digest_of([content, _digests(tensors)])}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, {entry: json.dumps(document, allow_nan=False)})


def read_tensor_file(
    path: Path, kind: type[R], entry: str = HEADER, earlier: Earlier = dict
) -> tuple[R, dict[str, Tensor]]:
    """Reads a file: its record and its tensors, on the CPU. Nothing in it is ever executed.

    Args:
        path: The file.
        kind: The class of the record.
        entry: The header's entry for the record.
        earlier: Makes the record's document of a header without the entry.

    Raises:
        UserError: If the file is missing, is no safetensors file, or its record is wrong; names the file, the field,
            the value, what is allowed and what to do. The type is the record's ``raises``.
    """
    with _explained(path, kind), safe_open(path, "pt") as file:
        document = _document(file, entry, earlier)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        extra = _digests(tensors) if isinstance(document, dict) and DIGEST in document else None
    return checked(document, kind, repr(str(path)), extra), tensors


def read_tensor_header(path: Path, kind: type[R], entry: str = HEADER, earlier: Earlier = dict) -> R:
    """Reads the record of a file without its tensors, which may be large; arguments and errors as `read_tensor_file`.

    The digest is not checked, because it covers the tensors.
    """
    with _explained(path, kind), safe_open(path, "pt") as file:
        document = _document(file, entry, earlier)
    if isinstance(document, dict):
        document.pop(DIGEST, None)
    return checked(document, kind, repr(str(path)))


def _document(file: Any, entry: str, earlier: Earlier) -> Any:
    header = file.metadata() or {}
    return strict_json(header[entry].encode()) if entry in header else dict(earlier(header))


@contextmanager
def _explained(path: Path, kind: type[Record]) -> Iterator[None]:
    """Says which file is damaged: a damaged file can make the reader raise any exception."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or shorten(str(error) or type(error).__name__)
        what = "cannot be read" if isinstance(error, OSError | SafetensorError) else "is damaged"
        raise kind.raises(f"{str(path)!r} {what}: {reason}. {kind.remedy}") from error


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash of tensors and their names, as hexadecimal digits."""
    return digest_of(_digests(tensors))


def nothing_recorded(_header: Mapping[str, str]) -> Mapping[str, Any]:
    """The record of a file that an earlier release wrote without one, where no field is asked for."""
    return {}


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Type, shape and hash of each tensor."""
    return {
        name: [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
        for name, tensor in tensors.items()
    }


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
