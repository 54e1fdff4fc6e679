"""Proof by cutting: every unit is cut, run and compared with the dense network before it is used.

All units are cut together. If the comparison fails, the set of units is halved until each failing unit is alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.copying import copied
from prune_env.surgery.channels import kept_channels, slice_network
from prune_env.walk.comparison import NOT_RUN, DenseDoesNotRun, Removed, difference, removed_places
from prune_env.walk.example import Example
from prune_env.walk.unit import Unit

ROUNDS = 3
"""The number of cuts of half of the channels that every unit must pass. Three of them distinguish any two channels of a
unit with up to eight channels. A single cut would let every third wrong map of four channels pass [our choice]."""

UNEVEN = 2
"""The number of further rounds, right after the first, in which units of one size lose different numbers of channels.
Units that must stay of one size, because they are stacked, would pass every cut that takes as many from each. The two
rounds together also remove the channel that no other round removes [our choice]."""


def failing_units(
    model: nn.Module,
    example: Example,
    units: Sequence[Unit],
    seed: int = 0,
    tick: Callable[[str], None] = lambda _place: None,
    decides: bool = False,
) -> dict[str, str]:
    """Cuts channels of the units and compares with the dense network in which these channels are zeroed.

    The networks run on noise of the example's mean and deviation, on this noise times 0.1 and 10, and on the example
    itself where it is not constant; every unit is cut on each of these inputs. Zeros would let any map pass. Inputs
    that the dense network's code refuses are left out. Numbers are float32; from the first difference on they are
    float64, because some networks amplify rounding.

    Args:
        model: The dense network in eval mode.
        example: What the network is called with.
        units: The units to prove.
        seed: The seed for the noise and for the choice of the channels that are cut.
        tick: Called before each comparison with what it is about; may raise to stop.
        decides: Whether the network sorts, selects or compares values, as detectors do. The cut network then takes the
            dense network's decisions, because rounding alone may change them.

    Returns:
        The reason in words for each unit that fails, by unit name.
    """
    noise = example.noise(seed)
    # The uneven rounds leave some units whole, but no unit in both, so both have the same input.
    inputs = [noise if example.constant else example, noise, noise, example.noise(seed, 10.0), example.noise(seed, 0.1)]
    probe = _without_silent_channels(model, seed)
    with suppress(DenseDoesNotRun):  # the user's own code may refuse noise
        return _Proof(probe, inputs, tick, decides).failures(units, seed)
    inputs = [one for one in inputs if _runs(probe, one)]
    if not inputs:
        reason = "the network refuses noise, and a constant example proves nothing; give an example with values"
        return {unit.name: reason for unit in units}
    return _Proof(probe, inputs, tick, decides, patient=True).failures(units, seed)


def _runs(model: nn.Module, example: Example) -> bool:
    """Whether a network runs on an input; its code may refuse values that the example does not have."""
    try:
        with torch.no_grad():
            example.run(model)
    except Exception:  # the user's own code may raise anything
        return False
    return True


@dataclass
class _Proof:
    """Cuts units and halves the set of those that fail.

    Attributes:
        probe: The dense network.
        inputs: The input of each round; if there are fewer, in turn.
        tick: Called before each comparison.
        decides: Whether the cut network takes the dense network's decisions.
        patient: Whether a dense network that does not run with channels of zeros is a reason, and no error.
        single: Whether numbers are still float32.
    """

    probe: nn.Module
    inputs: list[Example]
    tick: Callable[[str], None]
    decides: bool
    patient: bool = False
    single: bool = True

    def failures(self, units: Sequence[Unit], seed: int) -> dict[str, str]:
        """Returns the reason for each unit that fails one of the cuts."""
        generator = np.random.default_rng(seed)
        order = {unit.name: generator.permutation(unit.channels) for unit in units}
        failures: dict[str, str] = {}
        for number in range(ROUNDS + UNEVEN):
            remaining = [unit for unit in units if unit.name not in failures]
            self._examine(remaining, [], _cuts(remaining, order, number), number, failures)
        return failures

    def _examine(
        self,
        candidates: Sequence[Unit],
        accepted: list[Unit],
        cuts: Mapping[str, IntArray],
        number: int,
        failures: dict[str, str],
    ) -> None:
        """Adds each candidate to the accepted units or, with its reason, to the failures."""
        if not candidates:
            return
        self.tick(f"the proof of {candidates[0].name!r} and {len(candidates) - 1} other units")
        reason = self._reason(removed_places([*accepted, *candidates], cuts), number)
        if reason is None:
            accepted.extend(candidates)
        elif len(candidates) == 1:
            failures[candidates[0].name] = reason
        else:
            middle = len(candidates) // 2
            self._examine(candidates[:middle], accepted, cuts, number, failures)
            self._examine(candidates[middle:], accepted, cuts, number, failures)

    def _reason(self, removed: Removed, number: int) -> str | None:
        """Returns why the cut network differs; the first difference is judged again in float64."""
        try:
            kept = kept_channels(self.probe, removed)
            small = slice_network(self.probe, kept)
        except Exception as error:  # modules of a user's own may hold anything under the names of sizes
            return f"it cannot be cut: {error}"
        try:
            example = self.inputs[number % len(self.inputs)]
            reason = difference(self.probe, small, kept, example, removed, self.decides)
        except DenseDoesNotRun as error:
            if not self.patient:
                raise
            return f"the network refuses channels of zeros: {error}"
        if reason is None or not self.single or NOT_RUN in reason:
            return reason
        single = self.probe, self.inputs, self.patient
        self.single = self.patient = False
        self.probe, self.inputs = copied(self.probe).double(), [one.floats(Tensor.double) for one in self.inputs]
        try:
            again = self._reason(removed, number)
        except DenseDoesNotRun:  # the user's own code may make float32 tensors
            self.probe, self.inputs, self.patient = single
            return reason
        self.patient = single[2]
        return again


def _cuts(units: Sequence[Unit], order: Mapping[str, IntArray], number: int) -> dict[str, IntArray]:
    """Selects the channels that each unit loses in one round."""
    if not 1 <= number <= UNEVEN:
        return {unit.name: _cut(order[unit.name], max(0, number - UNEVEN)) for unit in units}
    seen: Counter[int] = Counter()
    cuts = {}
    for unit in units:
        few = seen[unit.channels] % unit.channels
        cuts[unit.name] = np.flatnonzero(order[unit.name] < (few if number == 1 else unit.channels - 1 - few))
        seen[unit.channels] += 1
    return cuts


def _cut(order: IntArray, number: int) -> IntArray:
    """Selects about half of the channels, never all: those whose place in a random order has a certain bit set."""
    bit = number % max(1, (len(order) - 1).bit_length())
    return np.flatnonzero(order >> bit & 1)


def _without_silent_channels(model: nn.Module, seed: int) -> nn.Module:
    """Returns a copy whose batch norms have no zero scale or shift, because zeros would hide a wrong map."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            weight, bias = module.weight.detach(), module.bias.detach()
            noise = torch.rand(module.num_features, generator=generator).to(weight)
            loud = torch.where(weight.abs() < 1e-3, 0.5 + noise, weight * (0.75 + 0.5 * noise))
            shared[id(module.weight)] = nn.Parameter(loud)
            shared[id(module.bias)] = nn.Parameter(bias + 0.1 * (noise.flip(0) - 0.5))
    return copied(model, shared)
