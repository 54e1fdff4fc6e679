"""A unit's filters as points: the folded weights of all that writes it, standardised layer by layer."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_env.common.arrays import IntArray
from prune_env.criteria.context import ScoringContext
from prune_env.walk.unit import Unit

FloatArray = npt.NDArray[np.float64]

DEAD = 1e-6
"""A filter is dead if its norm is below this share of the unit's largest [our choice]."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of one unit that are not zero.

    Attributes:
        live: int64 [live], the unit's channels that they write, ascending.
        norms: float64 [live], L2 norms of the folded weights.
        layers: For each layer that writes the unit, float32 [live, kernels, taps], standardised.
    """

    live: IntArray
    norms: FloatArray
    layers: tuple[Tensor, ...]

    @property
    def rows(self) -> Tensor:
        """All weights of each filter in one row, float32 [live, weights]."""
        return torch.cat([layer.flatten(1) for layer in self.layers], dim=1)


def live_filters(context: ScoringContext, unit: Unit) -> Filters:
    """A unit's filters, those that are zero left out: they would be a cluster of their own, and one of them stay."""
    layers = []
    for producer in context.producers(unit):
        weight = context.weights[producer.module].detach().cpu()
        kernels = weight.reshape(*weight.shape[:2], -1)[torch.as_tensor(producer.index)]
        layers.append(kernels.flatten(1, 2))
    squares = torch.stack([layer.double().square().sum(dim=(1, 2)) for layer in layers]).sum(dim=0)
    norms = squares.sqrt().numpy()
    live = np.flatnonzero(norms > DEAD * norms.max())
    return Filters(live, norms[live], tuple(standardise(layer[torch.as_tensor(live)]) for layer in layers))


def standardise(points: Tensor) -> Tensor:
    """Weights around their mean filter, in units of the whole layer's standard deviation.

    One scale for a layer keeps its filters' lengths comparable, and lets each layer of a coupled unit say as much.

    Args:
        points: [filters, ...].
    """
    centred = points - points.mean(dim=0)
    scale = centred.square().mean().sqrt()
    return centred / torch.where(scale > 0, scale, torch.ones_like(scale))


def compact(rows: Tensor) -> FloatArray:
    """The same points in as few axes as n points need: all distances stay, and thousands of weights need not.

    Args:
        rows: Centred points [n, weights].

    Returns:
        float64 [n, min(n, weights)].
    """
    points = rows.double()
    if points.shape[1] > len(points):
        values, vectors = torch.linalg.eigh(points @ points.mT)
        points = (vectors * values.clamp_min(0).sqrt()).flip(1)
    found: FloatArray = points.numpy()
    return found
