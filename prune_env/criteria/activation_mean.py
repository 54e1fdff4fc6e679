"""Activation mean: a channel is worth the size of what the next layers read of it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.costs import Convolution
from prune_env.criteria.registry import register_criterion
from prune_env.criteria.subject import Subject
from prune_env.unit import Member, Unit
from prune_env.walk import Scores


@register_criterion("activation_mean", needs="images")
def activation_mean(subject: Subject) -> Scores:
    """The mean |x| over images and positions of a channel x as convolutions and linear layers read it.

    That is after batch norm, activation, residual addition and pooling: after a ReLU, Molchanov et al.'s mean
    activation (ICLR 2017). The absolute value, which a ReLU does not need, and the mean over several readers are our
    choice. Units that nothing reads get 0.
    """
    readers = {unit.name: _readers(subject, unit) for unit in subject.walk.units}
    means = _means(subject, list(dict.fromkeys(member.module for group in readers.values() for member in group)))
    return {
        unit.name: sum(
            (means[member.module][member.index].mean(axis=1) for member in readers[unit.name]), np.zeros(unit.channels)
        )
        / max(1, len(readers[unit.name]))
        for unit in subject.walk.units
    }


def _readers(subject: Subject, unit: Unit) -> list[Member]:
    """Where convolutions and linear layers read a unit's channels."""
    return [
        member
        for member in unit.members
        if member.side == "in"
        and isinstance(subject.walk.model.get_submodule(member.module), (*Convolution, nn.Linear))
    ]


def _means(subject: Subject, layers: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """For each layer the mean |x| of its input channels, float64 [input channels]."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}

    def read(layer: str, maps: Tensor) -> None:
        axis = -1 if isinstance(subject.folded.get_submodule(layer), nn.Linear) else 1
        rows = maps.abs().movedim(axis, 0).flatten(1)
        sums[layer] = sums.get(layer, 0.0) + rows.sum(dim=1).double().cpu().numpy()
        counts[layer] = counts.get(layer, 0) + rows.shape[1]

    handles = [
        subject.folded.get_submodule(layer).register_forward_pre_hook(
            lambda _, inputs, layer=layer: read(layer, inputs[0])
        )
        for layer in layers
    ]
    try:
        with torch.no_grad(), torch.autocast(torch.device(subject.device).type, enabled=False):
            for images, _ in subject.batches():
                subject.folded(images)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: sums[layer] / counts[layer] for layer in layers}
