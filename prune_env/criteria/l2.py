"""L2 norm: scores a channel by the Euclidean norm of the weights that write the channel."""

import numpy as np

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("l2")
def l2(context: ScoringContext) -> Scores:
    """L2 norms over the concatenated weights of all members of a coupled unit."""
    return {unit.name: np.sqrt(context.walk.magnitudes(unit, power=2)) for unit in context.walk.units}
