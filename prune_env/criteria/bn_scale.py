"""BN scale: a channel is worth what its batch norm multiplies it by (network slimming, Liu et al., ICCV 2017)."""

import numpy as np
from torch import nn

from prune_env.common.errors import ConfigError
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores
from prune_env.walk.unit import Unit


@register_criterion("bn_scale")
def bn_scale(context: ScoringContext) -> Scores:
    """|gamma|, summed over the unit's batch norms [the sum is our choice]; 0 for a protected unit that has none.

    Raises:
        ConfigError: If a unit that may be cut has no batch norm with a scale; names the first.
    """
    found = {unit.name: _scales(context, unit) for unit in context.walk.units}
    for unit in context.walk.free:
        if not found[unit.name]:
            raise ConfigError(
                f"criterion.name: 'bn_scale' compares the scales of batch norms, and unit {unit.name!r} has no batch "
                "norm with a scale. Every unit that may be cut needs one: choose another criterion (such as 'l1'), or "
                "protect the unit under env.protect."
            )
    return {unit.name: sum(found[unit.name], np.zeros(unit.channels)) for unit in context.walk.units}


def _scales(context: ScoringContext, unit: Unit) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """|gamma| of each batch norm that the unit runs through, each [channels]."""
    members = ((context.walk.model.get_submodule(member.module), member.index) for member in unit.members)
    return [
        module.weight.detach().double().abs().cpu().numpy()[index].sum(axis=1)
        for module, index in members
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    ]
