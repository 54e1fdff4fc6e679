"""Geometric median: other channels can replace a channel that is close to all of them (FPGM, He et al., CVPR 2019)."""

import torch
from torch import Tensor

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores
from prune_env.walk.unit import Unit


@register_criterion("geometric_median")
def geometric_median(context: ScoringContext) -> Scores:
    """The sum of a filter's Euclidean distances to all other filters of the unit, on raw weights as in the paper.

    A channel's filter concatenates the weights of all layers that write the channel, so squared distances add over the
    members of a coupled unit [our choice].
    """
    return {unit.name: _squared(context, unit).sqrt().sum(dim=1).numpy() for unit in context.walk.units}


def _squared(context: ScoringContext, unit: Unit) -> Tensor:
    """Returns the squared distance between the filters of each pair of channels, float64 [channels, channels]."""
    total = torch.zeros(unit.channels, unit.channels, dtype=torch.float64)
    for producer in context.producers(unit):
        weight = context.walk.model.get_submodule(producer.module).get_parameter("weight").detach().cpu().double()
        filters = weight.flatten(1)[torch.from_numpy(producer.index)].flatten(1)
        total += torch.cdist(filters, filters).square()
    return total
