"""Comparison of a cut network with the dense network in which the cut channels are zeroed.

It covers the output of every convolution and linear layer, not only the network's output, so that a branch with a small
contribution cannot hide an error [our choice].
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.decisions import Decisions, Recording, Repeating
from prune_env.common.errors import first_line
from prune_env.common.hooks import watching
from prune_env.common.layers import channels_of, is_layer
from prune_env.common.nested import tensors_of
from prune_env.surgery.channels import Kept
from prune_env.walk.example import Example
from prune_env.walk.unit import Unit

TOLERANCE = 1e-4
"""The largest allowed difference, relative to the largest value of the compared tensor, in float32."""

NOT_RUN = "the cut network does not run"

Removed = dict[tuple[str, str], IntArray]


class DenseDoesNotRun(Exception):  # noqa: N818
    """Raised where the dense network does not run on an input of the proof."""


def removed_places(units: Sequence[Unit], cuts: Mapping[str, IntArray]) -> Removed:
    """Returns what the cut of some channels of each unit removes, by (module, side)."""
    places: dict[tuple[str, str], list[IntArray]] = {}
    for unit in units:
        for member in unit.members if len(cuts[unit.name]) else ():
            places.setdefault((member.module, member.side), []).append(member.index[cuts[unit.name]].ravel())
    return {place: np.concatenate(parts) for place, parts in places.items()}


def difference(
    dense: nn.Module, small: nn.Module, kept: Kept, example: Example, removed: Removed, decides: bool = False
) -> str | None:
    """Returns why a cut network differs from the dense network with zeroed channels; None if they agree.

    Args:
        dense: The dense network in eval mode.
        small: The cut network in eval mode.
        kept: The channels that stay, by (module, side).
        example: What to run both on.
        removed: The channels that are cut, by (module, side).
        decides: Whether the cut network takes the dense network's decisions.

    Raises:
        DenseDoesNotRun: If the dense network does not run with channels of zeros.
    """
    decisions = Decisions()
    recording = Recording(decisions) if decides else nullcontext()
    try:
        with zeroed(dense, removed), _recorded(dense) as expected, torch.no_grad(), recording:
            reference = example.run(dense)
    except Exception as error:  # the user's own code may raise anything
        raise DenseDoesNotRun(first_line(error)) from error
    try:
        repeating = Repeating(decisions, _agree) if decides else nullcontext()
        with _recorded(small) as actual, torch.no_grad(), repeating:
            result = example.run(small)
    except Exception as error:  # the user's own code may raise anything
        return f"{NOT_RUN}: {first_line(error)}"
    reason = _first_difference(dense, kept, expected, actual)
    if reason is not None:
        return reason
    ours, theirs = tensors_of(reference), tensors_of(result)
    if len(ours) != len(theirs) or not all(map(_agree, ours, theirs)):
        return "cutting it changes the network's output, so its channels are coupled in a way not understood"
    return None


def _first_difference(
    dense: nn.Module, kept: Kept, expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]
) -> str | None:
    for name, tensor in expected.items():
        rows = kept.get((name, "out"))
        dimension = tensor.ndim - 1 if isinstance(dense.get_submodule(name), nn.Linear) else 1
        if rows is not None:
            tensor = tensor.index_select(dimension, torch.as_tensor(rows, device=tensor.device))
        if not _agree(tensor, actual.get(name)):
            return f"cutting it changes the output of {name!r}, so its channels are coupled in a way not understood"
    return None


def _agree(expected: Tensor, actual: Tensor | None) -> bool:
    """Whether two tensors agree to `TOLERANCE` of the largest finite value; all else must be the same."""
    if actual is None or expected.shape != actual.shape:
        return False
    if not expected.numel() or not expected.is_floating_point():
        return torch.equal(expected, actual)
    scale = expected.abs().max()
    if not torch.isfinite(scale):
        finite = torch.isfinite(expected)
        if not finite.any() or not torch.equal(finite, torch.isfinite(actual)):
            return False
        expected, actual = torch.where(finite, expected, 0.0), torch.where(finite, actual, 0.0)
        scale = expected.abs().max()
    return bool((expected - actual).abs().max() <= TOLERANCE * scale.clamp_min(1e-12))


@contextmanager
def zeroed(model: nn.Module, removed: Removed) -> Iterator[None]:
    """Within the context, the removed channels are zero wherever a module reads them."""
    read = {name: places for (name, side), places in removed.items() if side == "in"}

    def zero(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        place = _place_of_channels(module, inputs)
        dimension = inputs[place].ndim - 1 if isinstance(module, nn.Linear) else 1
        gone = torch.as_tensor(read[name], device=inputs[place].device)
        return (*inputs[:place], inputs[place].index_fill(dimension, gone, 0.0), *inputs[place + 1 :])

    with watching(model, read, before=zero):
        yield


def _place_of_channels(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Returns which argument of a module holds its input channels; a user's own layer may take others before it."""
    axis, channels = -1 if isinstance(module, nn.Linear) else 1, channels_of(module, "in")
    for place, value in enumerate(inputs):
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[axis] == channels:
            return place
    return 0


@contextmanager
def _recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Records the output of each convolution and linear layer by name; of several calls, the last."""
    outputs: dict[str, Tensor] = {}

    def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        tensors = tensors_of(output)
        if tensors:
            outputs[name] = tensors[0]

    names = [name for name, module in model.named_modules() if is_layer(module)]
    with watching(model, names, after=record):
        yield outputs
