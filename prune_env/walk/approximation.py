"""Units whose cut is not exact: whether the cut network runs, and how much its output changes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from prune_env.common.errors import first_line
from prune_env.common.nested import tensors_of
from prune_env.surgery.channels import kept_channels, slice_network
from prune_env.walk.comparison import NOT_RUN, removed_places, zeroed
from prune_env.walk.example import Example
from prune_env.walk.unit import Unit


def with_errors(
    model: nn.Module, example: Example, units: Sequence[Unit], tick: Callable[[str], None], seed: int = 0
) -> list[Unit]:
    """Measures how much the cut of each free, inexact unit changes the network's output.

    Half of the unit's channels, drawn at random, are cut; the output is compared with that of the dense network in
    which these channels are zero wherever a layer reads them.

    Args:
        model: The dense network in eval mode.
        example: The inputs.
        units: All units; only the free, inexact ones are measured.
        tick: Called before each measurement with what it is about; may raise to stop.
        seed: Seed of the channels that are cut.

    Returns:
        The units, each measured one with its error, or protected with the reason if the cut network does not run.
    """
    generator = np.random.default_rng(seed)
    measured = []
    for unit in units:
        if unit.free and unit.inexact is not None:
            tick(f"the cut of {unit.name!r}, which is not exact")
            cut = generator.permutation(unit.channels)[: unit.channels // 2]
            unit = _measured(model, example, unit, cut)
        measured.append(unit)
    return measured


def _measured(model: nn.Module, example: Example, unit: Unit, cut: np.ndarray) -> Unit:
    removed = removed_places([unit], {unit.name: cut})
    try:
        with torch.no_grad():
            result = example.run(slice_network(model, kept_channels(model, removed)))
            with zeroed(model, removed):
                reference = example.run(model)
    except Exception as error:  # the user's own code may raise anything
        return replace(unit, protected=f"{NOT_RUN}: {first_line(error)}")
    change = size = 0.0
    for ours, theirs in zip(tensors_of(reference), tensors_of(result), strict=True):
        if ours.shape != theirs.shape:
            return replace(unit, protected="cutting it changes the shape of the network's output")
        if ours.is_floating_point():
            change += float((ours - theirs).double().square().sum())
            size += float(ours.double().square().sum())
    return replace(unit, error=float(np.sqrt(change / max(size, 1e-30))))
