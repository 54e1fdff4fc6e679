"""Feature-map rank: a channel whose maps have low rank carries little information (HRank, Lin et al., CVPR 2020)."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.protection.feature_ranks import feature_map_ranks
from prune_env.walk import Scores

Floats = npt.NDArray[np.float64]


@register_criterion("feature_rank", needs="images")
def feature_rank(context: ScoringContext) -> Scores:
    """The mean over images of rank / min(height, width) of a channel's maps, summed over the unit's layers.

    Maps are taken at the input of the next layer, as in HRank. L1 norms order channels of equal rank, and all channels
    of a unit without maps or with maps that are too small for ranks [our choice].

    Raises:
        EvaluationError: If a feature map is not finite.
    """
    magnitudes = {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}
    # The folded network computes the same maps, and is in float32 on the device.
    walk = replace(context.walk, model=context.folded)
    ranks = {unit.name: np.zeros(unit.channels) for unit in walk.units}
    for layer in feature_map_ranks(walk, context.images.to(context.device), context.batch_size).values():
        total = ranks[layer.unit]
        total += layer.ranks.reshape(len(total), -1).sum(axis=1)
    return {name: _ties_broken(total, magnitudes[name]) for name, total in ranks.items()}


def _ties_broken(ranks: Floats, magnitudes: Floats) -> Floats:
    """Adds magnitudes to ranks, scaled to at most half of the least difference between two ranks."""
    # Round, because equal sums in another order differ in the last bits. One rank in one image is a larger difference.
    levels = ranks.round(12)
    gap = np.diff(np.unique(levels)).min(initial=1.0)
    return np.asarray(levels + 0.5 * gap * magnitudes / max(magnitudes.max(), np.finfo(np.float64).tiny))
