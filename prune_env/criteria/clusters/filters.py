"""A unit's filters as points: the folded weights of all layers that write the unit, standardised per layer."""

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
        live: int64 [live], the unit's channels that these filters write, ascending.
        norms: float64 [live], L2 norms of the folded weights.
        layers: For each layer that writes the unit, float32 [live, kernels, taps], standardised.
    """

    live: IntArray
    norms: FloatArray
    layers: tuple[Tensor, ...]

    @property
    def rows(self) -> Tensor:
        """All weights of each filter as one row, float32 [live, weights]."""
        return torch.cat([layer.flatten(1) for layer in self.layers], dim=1)


def live_filters(context: ScoringContext, unit: Unit) -> Filters:
    """Returns a unit's filters without zero filters, which would form a cluster and so keep one of them."""
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
    """Subtracts the mean filter and divides by the standard deviation of the whole layer.

    One scale per layer keeps the norms of its filters comparable, and gives all layers of a coupled unit equal weight.

    Args:
        points: The weights of one layer's filters, [filters, ...].
    """
    centred = points - points.mean(dim=0)
    scale = centred.square().mean().sqrt()
    return centred / torch.where(scale > 0, scale, torch.ones_like(scale))


def compact(rows: Tensor) -> FloatArray:
    """Rotates n points into at most n coordinates, which keeps all distances and replaces thousands of weights.

    Args:
        rows: Centred points [n, weights].

    Returns:
        float64 [n, min(n, weights)].
    """
    points = rows.double()
    if points.shape[1] > len(points):
        values, vectors = torch.linalg.eigh(points @ points.mT)
        points = (vectors * values.clamp_min(0).sqrt()).flip(1)
    coordinates: FloatArray = points.numpy()
    return coordinates
