"""Read and write weights files: safetensors, or a state dict read without unpickling any other object."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from prune_env.common.errors import WeightsError
from prune_env.common.files import atomic_write, in_words
from prune_env.common.records import DIGEST
from prune_env.common.tensor_records import tensors_digest
from prune_env.common.text import quoted

# Files written before torch 0.4.1, and many converted files, lack this counter; no forward pass here reads it.
_OPTIONAL = ".num_batches_tracked"

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel, AveragedModel and torch.compile add to every name."""

_ENTRIES = ("state_dict", "model_state_dict", "model", "net", "params")
"""Where checkpoints of a training keep the weights; the first counts of those that fit the network best."""

_AVERAGED = "n_averaged"
"""AveragedModel's own counter, beside the network's names."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weights file into a network, in place; on an error the network stays unchanged.

    Args:
        model: The network.
        path: A ``.safetensors`` file, or any other name for a file that ``torch.load(weights_only=True)``
            reads: a state dict, bare or as an entry of a checkpoint (``state_dict``, ``model_state_dict``, ``model``,
            ``net``, ``params``, or the entry with most of the network's names). Prefixes of DataParallel and
            AveragedModel (``module.``) and of torch.compile (``_orig_mod.``) are removed where the network's own names
            lack them.

    Raises:
        WeightsError: If the file is missing, damaged, refused, not finite or made for another network.
    """
    path = Path(path)
    wanted = model.state_dict()
    state = _unwrapped(_read(path, wanted), wanted)
    _check_fit(path, wanted, state)
    model.load_state_dict({name: _converted(path, name, state[name], tensor) for name, tensor in wanted.items()})


def weights_bytes(model: nn.Module) -> bytes:
    """A network's state dict as the bytes of a safetensors file, with a digest of the tensors in its header."""
    # Clone, because safetensors refuses tensors that share memory, as tied parameters do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors, {DIGEST: tensors_digest(tensors)})


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
        raise WeightsError(f"weights file {path} cannot be written: {in_words(error)}") from error


def _converted(path: Path, name: str, given: Tensor, wanted: Tensor) -> Tensor:
    """Converts a tensor to the network's number type, in which it must be finite, too."""
    try:
        converted = given.to(wanted.dtype)
    except (RuntimeError, TypeError, NotImplementedError):  # a number type that torch cannot convert, such as float4
        raise WeightsError(
            f"weights file {path} was refused: {name!r} holds {given.dtype}, which torch cannot convert to "
            f"{wanted.dtype}; save the weights as {wanted.dtype}"
        ) from None
    if not bool(torch.isfinite(converted).all()):
        problem = "values that are not finite (nan or inf)"
        if bool(torch.isfinite(given).all()):
            problem = f"values that are too large for {wanted.dtype}"
        raise WeightsError(f"weights file {path}: {name!r} holds {problem}")
    return converted


def _read(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights file {path} {problem}; give a .safetensors or .pth file with model.weights=PATH")
    _refuse_compressed(path)
    digest = None
    # A damaged or hostile file can make the reader raise any exception.
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                digest = (file.metadata() or {}).get(DIGEST)
                content: object = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"weights file {path} was refused: it is truncated, damaged, or holds more than tensors "
            "(only safetensors and plain state dicts are read; nothing else is ever unpickled)"
        ) from error
    state = _state_of(path, content, wanted)
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain_tensor(value):
            raise WeightsError(f"weights file {path} was refused: its entry {quoted(name)} is not a plain tensor")
    if digest is not None and digest != tensors_digest(state):
        raise WeightsError(
            f"weights file {path} was damaged or changed: its tensors have not the digest in its header; restore it "
            "from a copy, or save the weights again"
        )
    return state


def _refuse_compressed(path: Path) -> None:
    """Refuses a zip file that grows when it is read: torch stores tensors as they are."""
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
    except Exception as error:  # torch may read parts that this reader cannot list, compressed ones too
        raise WeightsError(
            f"weights file {path} was refused: its list of parts is damaged; restore it from a copy, or save the "
            "weights again"
        ) from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
            raise WeightsError(
                f"weights file {path} was refused: its part {quoted(member.filename)} is compressed, and torch.save "
                "never compresses; save the weights again with torch.save, or as safetensors"
            )


def _state_of(path: Path, content: object, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a file: its content, or an entry of a checkpoint."""
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"weights file {path} was refused: it holds no state dict (a name for each tensor)")
    entries = {name: entry for name, entry in content.items() if isinstance(entry, Mapping) and entry}
    if not entries or any(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    fitting = {name: _fitting(entry, wanted) for name, entry in entries.items()}
    best = [name for name, count in fitting.items() if count == max(fitting.values())]
    usual = [name for name in _ENTRIES if name in best]
    if not usual and len(best) != 1:
        held = ", ".join(map(quoted, list(content)[:10]))
        raise WeightsError(
            f"weights file {path} was refused: it is a checkpoint with the entries {held}, and it is not clear which "
            "of them are the weights; save that entry alone with torch.save"
        )
    return dict(entries[(usual or best)[0]])


def _fitting(entry: Mapping[Any, Any], wanted: Mapping[str, Tensor]) -> int:
    """How many of the network's names an entry of a checkpoint holds."""
    tensors = {name: value for name, value in entry.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return len(_unwrapped(tensors, wanted).keys() & wanted.keys()) if tensors else 0


def _is_plain_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _unwrapped(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove as many wrappers' prefixes as give the most of the network's own names, which may begin so, too."""
    if _AVERAGED not in wanted:
        state = {name: tensor for name, tensor in state.items() if name != _AVERAGED}
    forms = [state]
    while prefix := next((each for each in _WRAPPERS if all(name.startswith(each) for name in forms[-1])), None):
        forms.append({name.removeprefix(prefix): tensor for name, tensor in forms[-1].items()})
    return max(forms, key=lambda form: len(form.keys() & wanted.keys()))


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
