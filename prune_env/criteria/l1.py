"""L1 norm: a channel is worth the sum of the absolute weights that produce it (Li et al., ICLR 2017)."""

from prune_env.criteria.context import Subject
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("l1")
def l1(subject: Subject) -> Scores:
    """L1 norms, summed over the members of a coupled unit."""
    return {unit.name: subject.walk.magnitudes(unit) for unit in subject.walk.units}
