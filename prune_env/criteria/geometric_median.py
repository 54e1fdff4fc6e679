"""Geometric median: a channel near all others can be replaced by them (FPGM, He et al., CVPR 2019)."""

import torch
from torch import Tensor

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores
from prune_env.walk.unit import Unit


@register_criterion("geometric_median")
def geometric_median(context: ScoringContext) -> Scores:
    """The sum of a filter's Euclidean distances to all others of the unit; the raw weights, as in the paper.

    A channel's filter is all that writes it, laid end to end: squared distances add over a coupled unit's members
    [our choice].
    """
    return {unit.name: _squared(context, unit).sqrt().sum(dim=1).numpy() for unit in context.walk.units}


def _squared(context: ScoringContext, unit: Unit) -> Tensor:
    """Squared distances of any two channels' filters, float64 [channels, channels]."""
    total = torch.zeros(unit.channels, unit.channels, dtype=torch.float64)
    for producer in context.producers(unit):
        weight = context.walk.model.get_submodule(producer.module).get_parameter("weight").detach().cpu().double()
        filters = weight.flatten(1)[torch.from_numpy(producer.index)].flatten(1)
        total += torch.cdist(filters, filters).square()
    return total
