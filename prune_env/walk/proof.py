"""Proof by cutting: every unit is cut, run and compared with the dense network before it is used.

All units are cut together. If the comparison fails, the set of units is halved until each failing unit is alone. The
comparison covers the output of every convolution and linear layer, not only the network's output, so that a branch with
a small contribution cannot hide an error [our choice].
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import UserError
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution
from prune_env.surgery.channels import kept_channels, slice_network
from prune_env.walk.unit import Unit

TOLERANCE = 1e-4
"""The largest allowed difference, relative to the largest value of the compared tensor, in float32."""

ROUNDS = 3
"""The number of cuts that every unit must pass. Three cuts distinguish any two channels of a unit with up to eight
channels. A single cut would let every third wrong map of four channels pass [our choice]."""

Removed = dict[tuple[str, str], IntArray]


def failing_units(model: nn.Module, example_input: Tensor, units: Sequence[Unit], seed: int = 0) -> dict[str, str]:
    """Cuts channels of the units and compares with the dense network in which these channels are zeroed.

    Args:
        model: The dense network in eval mode.
        example_input: A batch of inputs. Noise replaces floating-point values, because zeros would let any map pass.
        units: The units to prove.
        seed: The seed for the noise and for the choice of the channels that are cut.

    Returns:
        The reason in words for each unit that fails, by unit name.
    """
    probe = _without_silent_channels(model, seed)
    noise = _noise_like(example_input, seed)
    generator = np.random.default_rng(seed)
    order = {unit.name: generator.permutation(unit.channels) for unit in units}
    accepted: list[Unit] = []
    failures: dict[str, str] = {}
    cuts: dict[str, IntArray] = {}

    def examine(candidates: Sequence[Unit]) -> None:
        removed = _removed([*accepted, *candidates], cuts)
        reason = _difference(probe, noise, removed) if candidates else None
        if reason is None:
            accepted.extend(candidates)
        elif len(candidates) == 1:
            failures[candidates[0].name] = reason
        else:
            middle = len(candidates) // 2
            examine(candidates[:middle])
            examine(candidates[middle:])

    remaining = list(units)
    for number in range(ROUNDS):
        cuts.update((unit.name, _cut(order[unit.name], number)) for unit in remaining)
        accepted.clear()
        examine(remaining)
        remaining = list(accepted)
    return failures


def _cut(order: IntArray, number: int) -> IntArray:
    """Selects about half of the channels, never all: those whose place in a random order has a certain bit set."""
    bit = number % max(1, (len(order) - 1).bit_length())
    return np.flatnonzero(order >> bit & 1)


def _noise_like(example_input: Tensor, seed: int) -> Tensor:
    if not example_input.is_floating_point():
        return example_input
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(example_input.shape, generator=generator).to(example_input)


def _removed(units: Sequence[Unit], cuts: dict[str, IntArray]) -> Removed:
    places: dict[tuple[str, str], list[IntArray]] = {}
    for unit in units:
        for member in unit.members:
            places.setdefault((member.module, member.side), []).append(member.index[cuts[unit.name]].ravel())
    return {place: np.concatenate(parts) for place, parts in places.items()}


def _without_silent_channels(model: nn.Module, seed: int) -> nn.Module:
    """Returns a copy whose batch norms have no zero scale or shift, because zeros would hide a wrong map."""
    probe = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in probe.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            noise = torch.rand(module.num_features, generator=generator).to(module.weight)
            weight, bias = module.weight.data, module.bias.data
            module.weight.data = torch.where(weight.abs() < 1e-3, 0.5 + noise, weight * (0.75 + 0.5 * noise))
            module.bias.data = bias + 0.1 * (noise.flip(0) - 0.5)
    return probe


def _difference(dense: nn.Module, example_input: Tensor, removed: Removed) -> str | None:
    """Returns why the cut network differs from the dense network with zeroed channels; None if they agree."""
    try:
        kept = kept_channels(dense, removed)
        small = slice_network(dense, kept)
        with _recorded(small) as actual, torch.no_grad():
            result = small(example_input)
    except UserError as error:
        return f"it cannot be cut: {error}"
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        return f"the cut network does not run: {str(error).splitlines()[0][:160]}"
    with _zeroed(dense, removed), _recorded(dense) as expected, torch.no_grad():
        reference = dense(example_input)
    for name, tensor in expected.items():
        rows = kept.get((name, "out"))
        dimension = 1 if isinstance(dense.get_submodule(name), Convolution) else tensor.ndim - 1
        if rows is not None:
            tensor = tensor.index_select(dimension, torch.as_tensor(rows, device=tensor.device))
        if not _agree(tensor, actual.get(name)):
            return f"cutting it changes the output of {name!r}, so its channels are coupled in a way not understood"
    for tensor, other in zip(_tensors(reference), _tensors(result), strict=True):
        if not _agree(tensor, other):
            return "cutting it changes the network's output, so its channels are coupled in a way not understood"
    return None


def _agree(expected: Tensor, actual: Tensor | None) -> bool:
    if actual is None or expected.shape != actual.shape:
        return False
    scale = expected.abs().max().clamp_min(1e-12)
    return bool((expected - actual).abs().max() <= TOLERANCE * scale)


@contextmanager
def _zeroed(model: nn.Module, removed: Removed) -> Iterator[None]:
    """Within the context, the removed channels are zero wherever a module reads them."""
    read = {name: places for (name, side), places in removed.items() if side == "in"}

    def zero(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tensor = inputs[0].clone()
        dimension = tensor.ndim - 1 if isinstance(module, nn.Linear) else 1
        tensor.index_fill_(dimension, torch.as_tensor(read[name], device=tensor.device), 0.0)
        return (tensor, *inputs[1:])

    with watching(model, read, before=zero):
        yield


@contextmanager
def _recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Records the output of each convolution and linear layer by name; of several calls, the last."""
    outputs: dict[str, Tensor] = {}

    def record(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs[name] = output

    names = [name for name, module in model.named_modules() if isinstance(module, (*Convolution, nn.Linear))]
    with watching(model, names, after=record):
        yield outputs


def _tensors(value: Any) -> list[Tensor]:
    """Returns all tensors in a network's output, at any depth of nesting."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
