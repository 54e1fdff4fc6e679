"""Errors for broken promises, and snapshots that a check compares before and after."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def require(kept: bool, broken: str) -> None:
    """Raises an error where a promise is broken; also where Python runs without assertions.

    Raises:
        AssertionError: With the sentence, unless the promise is kept.
    """
    if not kept:
        raise AssertionError(broken)


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turns any error within into an AssertionError that starts with the words given and ends with the error's."""
    try:
        yield
    except Exception as error:  # what is checked runs the user's code, which may raise anything
        raise AssertionError(f"{failure}: {type(error).__name__}: {error}") from error


class Snapshot:
    """The state of a network, to compare with its later state.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._traits = _traits(model)

    def difference(self) -> str | None:
        """Says in words what has changed first; None where nothing has."""
        now = self._model.state_dict()
        if now.keys() != self._tensors.keys():
            return "it changes which tensors the network has"
        for name, tensor in self._tensors.items():
            if tensor.shape != now[name].shape or not torch.equal(tensor, now[name]):
                return f"it changes the network's tensor {name!r}; work on a copy"
        for (what, before), (_, after) in zip(self._traits, _traits(self._model), strict=True):
            if before != after:
                return f"it leaves {what} different: {before} before, {after} after"
        return None


def _traits(model: nn.Module) -> list[tuple[str, object]]:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    return [
        ("which modules are in training mode", [name for name, module in modules.items() if module.training]),
        ("which parameters need gradients", [name for name, each in parameters.items() if each.requires_grad]),
        ("which parameters hold gradients", [name for name, each in parameters.items() if each.grad is not None]),
        ("how many hooks modules have", [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules.values()]),
    ]
