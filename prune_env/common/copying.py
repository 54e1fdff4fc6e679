"""Copies of networks that hold what Python cannot copy."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

IMMUTABLE = (int, float, bool, str, type(None))
"""Types of attributes that a copy may share."""

OWN_WAYS = ("__reduce__", "__reduce_ex__")
"""Methods, beside ``__deepcopy__``, by which a module may say how it is copied."""

REFUSALS = (TypeError, RuntimeError, NotImplementedError)
"""What Python and torch raise where something cannot be copied."""


def copied(model: nn.Module, replaced: Mapping[int, Any] | None = None) -> nn.Module:
    """Returns a deep copy that shares what cannot be copied, such as locks, and drops the graphs of kept maps.

    Args:
        model: The network.
        replaced: What the copy holds in place of an object, by the object's id.
    """
    try:
        return _copied_tree(model, dict(replaced or {}))
    except REFUSALS:
        return _copied_tree(model, {**_substitutes(model), **(replaced or {})})


def _copied_tree(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Returns what `copy.deepcopy` returns, but faster: most of a module's state is empty or immutable."""
    known = memo.get(id(module))
    if isinstance(known, nn.Module):
        return known
    kind = type(module)
    own = hasattr(kind, "__deepcopy__") or any(getattr(kind, name) is not getattr(nn.Module, name) for name in OWN_WAYS)
    state = None if own else module.__getstate__()
    if not isinstance(state, dict):
        other: nn.Module = copy.deepcopy(module, memo)
        return other
    new = kind.__new__(kind)
    memo[id(module)] = new
    new.__setstate__({key: _copied_value(key, value, memo) for key, value in state.items()})
    return new


def _copied_value(key: str, value: Any, memo: dict[int, Any]) -> Any:
    if key == "_modules":
        return {name: None if child is None else _copied_tree(child, memo) for name, child in value.items()}
    if key in ("_parameters", "_buffers"):
        return {name: None if tensor is None else copy.deepcopy(tensor, memo) for name, tensor in value.items()}
    if type(value) in (dict, OrderedDict) and not value:
        return type(value)()
    if key == "_non_persistent_buffers_set":
        return set(value)
    flat = type(value) is tuple and all(type(item) in IMMUTABLE for item in value)
    return value if flat or type(value) in IMMUTABLE else copy.deepcopy(value, memo)


def _substitutes(model: nn.Module) -> dict[int, Any]:
    """Returns what a copy of the network holds in place of what cannot be copied, by id."""
    memo: dict[int, Any] = {}
    held: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                _collect(value, memo, held)
    # What holds others comes after all that holds nothing: with the locks shared, the dicts around them can be copied.
    for value in sorted(held.values(), key=lambda value: bool(_inner(value))):
        try:
            copy.deepcopy(value, dict(memo))
        except REFUSALS:
            memo[id(value)] = value
    return memo


def _collect(value: Any, memo: dict[int, Any], held: dict[int, Any]) -> None:
    """Collects the values within a value, each after those that it holds; maps with a graph get a copy in the memo."""
    if id(value) in held or type(value) in IMMUTABLE or isinstance(value, nn.Module):
        return
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    held[id(value)] = value  # a value that holds itself ends here
    for item in _inner(value):
        _collect(item, memo, held)
    held[id(value)] = held.pop(id(value))


def _inner(value: Any) -> list[Any]:
    """Returns what a value holds: the items of a container, the attributes of an object."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    return list(vars(value).values()) if hasattr(value, "__dict__") and not callable(value) else []
