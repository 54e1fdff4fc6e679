"""Random: the baseline that every criterion must beat."""

import numpy as np

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("random", random=True)
def random_order(context: ScoringContext) -> Scores:
    """Independent uniform numbers in [0, 1), one per channel."""
    generator = np.random.default_rng(context.seed)
    return {unit.name: generator.random(unit.channels) for unit in context.walk.units}
