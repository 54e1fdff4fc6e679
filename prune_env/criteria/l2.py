"""L2 norm: a channel is worth the Euclidean length of the weights that produce it."""

import numpy as np

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("l2")
def l2(context: ScoringContext) -> Scores:
    """L2 norms over all members of a coupled unit together."""
    return {unit.name: np.sqrt(context.walk.magnitudes(unit, power=2)) for unit in context.walk.units}
