"""BN scale: scores a channel by the scale of its batch norm (network slimming, Liu et al., ICCV 2017)."""

import numpy as np
from torch import nn

from prune_env.common.errors import ConfigError
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores
from prune_env.walk.unit import Unit


@register_criterion("bn_scale")
def bn_scale(context: ScoringContext) -> Scores:
    """|gamma|, summed over the unit's batch norms [the sum is our choice]; 0 for a protected unit without batch norms.

    Raises:
        ConfigError: If a free unit has no batch norm with a scale; names the first such unit.
    """
    scales = {unit.name: _scales(context, unit) for unit in context.walk.units}
    for unit in context.walk.free:
        if not scales[unit.name]:
            raise ConfigError(
                f"criterion.name: 'bn_scale' compares the scales of batch norms, but unit {unit.name!r} has no batch "
                "norm with a scale. Every free unit needs one. Choose another criterion, such as 'l1', or protect the "
                "unit with env.protect."
            )
    return {unit.name: sum(scales[unit.name], np.zeros(unit.channels)) for unit in context.walk.units}


def _scales(context: ScoringContext, unit: Unit) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Returns |gamma| of each of the unit's batch norms, each [channels]."""
    members = ((context.walk.model.get_submodule(member.module), member.index) for member in unit.members)
    return [
        module.weight.detach().double().abs().cpu().numpy()[index].sum(axis=1)
        for module, index in members
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    ]
