"""Read and write weights files: safetensors, or a state dict read without unpickling any other object."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prune_env.common.errors import WeightsError
from prune_env.common.files import atomic_write
from prune_env.common.fingerprint import shorten

# Files written before torch 0.4.1, and many converted files, lack this counter; no forward pass here reads it.
_OPTIONAL = ".num_batches_tracked"

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel, AveragedModel and torch.compile add to every name."""

_AVERAGES = "n_averaged"
"""The counter that AveragedModel adds."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weights file into a network, in place; on an error the network stays unchanged.

    Args:
        model: The network.
        path: A ``.safetensors`` file, or any other name for a file that ``torch.load(weights_only=True)``
            reads: a state dict, bare or as an entry of a checkpoint, such as ``model`` or ``state_dict``. Prefixes of
            DataParallel and AveragedModel (``module.``) and torch.compile (``_orig_mod.``) are removed where the
            network's own names lack them.

    Raises:
        WeightsError: If the file is missing, damaged, refused, not finite or made for another network.
    """
    path = Path(path)
    wanted = model.state_dict()
    state = _chosen(path, _read(path), wanted)
    _check_fit(path, wanted, state)
    model.load_state_dict({name: _converted(path, name, tensor, wanted[name].dtype) for name, tensor in state.items()})


def weights_bytes(model: nn.Module) -> bytes:
    """A network's state dict as the bytes of a safetensors file."""
    # Clone, because safetensors refuses tensors that share memory, as tied parameters do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's state dict as safetensors; the file appears whole or not at all.

    Args:
        model: The network.
        path: The file to write; missing folders are created, an older file is replaced atomically.

    Raises:
        WeightsError: If the file cannot be written; an older file stays unchanged.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, weights_bytes(model))
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be written: {error.strerror or error}") from error


def _read(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights file {path} {problem}; give a .safetensors or .pth file with model.weights=PATH")
    # A damaged or hostile file can make the reader raise any exception.
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"weights file {path} was refused: it is truncated, damaged, or holds more than tensors "
            "(only safetensors and plain state dicts are read; nothing else is ever unpickled)"
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"weights file {path} was refused: it holds no state dict (a name for each tensor)")
    return content


def _chosen(path: Path, content: Mapping[Any, Any], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a file: its content, or the only entry of a checkpoint with most of the network's names."""
    entries = {name: entry for name, entry in content.items() if isinstance(entry, Mapping) and entry}
    if not entries or any(isinstance(value, Tensor) and name in wanted for name, value in content.items()):
        return _unwrapped(_plain(path, content), wanted)
    found = {}
    for name, entry in entries.items():
        tensors = {key: value for key, value in entry.items() if isinstance(key, str) and _is_plain_tensor(value)}
        found[name] = len(_unwrapped(tensors, wanted).keys() & wanted.keys())
    best = [name for name, count in found.items() if count == max(found.values())]
    if len(best) > 1 and found[best[0]]:
        raise WeightsError(
            f"weights file {path} holds more than one state dict of this network: {', '.join(map(repr, best))}. Save "
            "the one that you want in a file of its own."
        )
    return _unwrapped(_plain(path, entries[best[0]]), wanted)


def _plain(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The state dict, of which every entry is a tensor; the count of averages of AveragedModel is left out."""
    tensors = {name: value for name, value in state.items() if name != _AVERAGES}
    for name, value in tensors.items():
        if not isinstance(name, str) or not _is_plain_tensor(value):
            raise WeightsError(
                f"weights file {path} was refused: its entry {shorten(repr(name))} is not a plain tensor; save the "
                "network's state_dict()"
            )
    return tensors


def _is_plain_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _unwrapped(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove as many wrappers' prefixes as give the most of the network's own names, which may begin so, too."""
    forms = [state]
    while state and (prefix := next((each for each in _WRAPPERS if all(n.startswith(each) for n in forms[-1])), None)):
        forms.append({name.removeprefix(prefix): tensor for name, tensor in forms[-1].items()})
    return max(forms, key=lambda form: len(form.keys() & wanted.keys()))


def _converted(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in the network's number type, in which it must be finite."""
    try:
        values = tensor.to(dtype)
        finite = bool(torch.isfinite(values).all())
    except (RuntimeError, NotImplementedError) as error:
        raise WeightsError(
            f"weights file {path}: {shorten(repr(name))} holds {tensor.dtype}, which torch cannot convert to {dtype}; "
            f"save it as {dtype}"
        ) from error
    if not finite:
        raise WeightsError(
            f"weights file {path}: {shorten(repr(name))} holds values that are not finite in {dtype} (nan or inf)"
        )
    return values


def _check_fit(path: Path, wanted: Mapping[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raise for the first module, in the network's order, that the file does not fit; fill in missing BN counters."""
    for name, tensor in wanted.items():
        module, _, parameter = name.rpartition(".")
        where = f"module {module!r}, {parameter!r}" if module else repr(parameter)
        if name not in given:
            if name.endswith(_OPTIONAL):
                given[name] = tensor
                continue
            raise WeightsError(
                f"weights file {path} does not fit the network: {where} is missing from the file "
                f"(the network needs shape {tuple(tensor.shape)})"
            )
        if given[name].shape != tensor.shape:
            raise WeightsError(
                f"weights file {path} does not fit the network: {where} has shape "
                f"{tuple(given[name].shape)} in the file, the network needs {tuple(tensor.shape)}"
            )
        if tensor.is_floating_point() and not given[name].is_floating_point():
            raise WeightsError(
                f"weights file {path} does not fit the network: {where} holds "
                f"{given[name].dtype} in the file, the network needs {tensor.dtype}"
            )
    for name in given:
        if name not in wanted:
            raise WeightsError(
                f"weights file {path} does not fit the network: the network has no parameter or buffer {name!r}"
            )
