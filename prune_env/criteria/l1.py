"""L1 norm: scores a channel by the sum of the absolute weights that write the channel (Li et al., ICLR 2017)."""

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("l1")
def l1(context: ScoringContext) -> Scores:
    """L1 norms, summed over the members of a coupled unit."""
    return {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}
