"""Tensors in nested values: what a network is called with, and what it returns."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def tensors_of(value: Any, others: bool = True) -> list[Tensor]:
    """Returns all tensors in a value, at any depth of tuples, lists, mappings, dataclasses and attributes of objects.

    Args:
        value: What to look through; what is no tensor is skipped.
        others: Whether NumPy arrays, numbers and the attributes of other objects count.
    """
    return _tensors(value, others, frozenset())


def _tensors(value: Any, others: bool, outer: frozenset[int]) -> list[Tensor]:
    """As `tensors_of`; ``outer`` holds the ids of the values around this one, so that a cycle ends."""
    if id(value) in outer:
        return []
    outer |= {id(value)}
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (np.ndarray, float)) and others:
        return [torch.as_tensor(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    elif others and hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType, nn.Module)):
        value = list(vars(value).values())
    if not isinstance(value, (list, tuple, set)):
        return []
    return [tensor for item in value for tensor in _tensors(item, others, outer)]


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Returns a copy of a nested value in which a function has replaced every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        made = copy.copy(value)
        made.update({key: mapped(item, function) for key, item in value.items()})
        return made
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, function) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: mapped(getattr(value, field.name), function) for field in fields(value)})
    return value
