"""Random: the control that every criterion has to beat."""

import numpy as np

from prune_env.criteria.context import Subject
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("random", random=True)
def random_order(subject: Subject) -> Scores:
    """Independent uniform numbers of [0, 1) for every channel."""
    generator = np.random.default_rng(subject.seed)
    return {unit.name: generator.random(unit.channels) for unit in subject.walk.units}
