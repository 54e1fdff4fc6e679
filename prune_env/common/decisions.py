"""Decisions of a forward pass: what it sorts, selects and compares, recorded in one network and repeated in another.

Two networks that differ by rounding alone may order two almost equal scores differently, and all that follows differs.
So the cut network takes the dense network's decisions, and what it would have decided by is compared instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prune_env.common.nested import mapped

DECIDING = frozenset(
    [f"aten::{name}" for name in ("topk", "sort", "nonzero", "argmax", "argmin", "argsort", "_unique2", "bucketize")]
    + [f"aten::{name}" for name in ("ge", "gt", "le", "lt", "eq", "ne", "floor", "ceil", "round", "searchsorted")]
    + ["torchvision::nms"]
)
"""Operations whose result jumps where their input hardly changes."""


def decides(function: Any) -> bool:
    """Whether an ATen operation decides."""
    return str(function.name()).partition(".")[0] in DECIDING


@dataclass
class Decisions:
    """The decisions of one forward pass, in order: the operation's name, its arguments, and its result."""

    made: list[tuple[str, Any, Any]] = field(default_factory=list)


class Recording(TorchDispatchMode):
    """Records the decisions of a forward pass."""

    def __init__(self, decisions: Decisions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.decisions = decisions

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = mapped((args, kwargs or {}), torch.clone) if decides(func) else None
        result = func(*args, **(kwargs or {}))
        if decides(func):
            self.decisions.made.append((func.name(), read, result))
        return result


class Repeating(TorchDispatchMode):
    """Repeats the decisions of another forward pass where what they were based on agrees.

    Args:
        decisions: The decisions to repeat.
        agree: Whether two tensors are the same but for rounding.
    """

    def __init__(self, decisions: Decisions, agree: Callable[[Tensor, Tensor], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made = iter(decisions.made)
        self._agree = agree

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if decides(func):
            name, read, result = next(self._made, ("", None, None))
            if name == func.name() and self._same(read, (args, kwargs or {})):
                return result
        return func(*args, **(kwargs or {}))

    def _same(self, read: Any, given: Any) -> bool:
        """Whether a decision had the same arguments: tensors but for rounding, all else to the digit."""
        if isinstance(read, Tensor) and isinstance(given, Tensor):
            return self._agree(read, given)
        if isinstance(read, (list, tuple)) and isinstance(given, (list, tuple)):
            return len(read) == len(given) and all(map(self._same, read, given))
        if isinstance(read, dict) and isinstance(given, dict):
            return read.keys() == given.keys() and all(self._same(read[key], given[key]) for key in read)
        return type(read) is type(given) and bool(read == given)
