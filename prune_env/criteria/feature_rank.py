"""Feature-map rank: a channel whose maps have low rank carries little (HRank, Lin et al., CVPR 2020)."""

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

    Maps are looked at where the next layer reads them, as HRank does. Channels of equal rank are in the order of their
    L1 norms, and so are all channels of a unit whose maps are too small to tell or that has none [our choice].

    Raises:
        EvaluationError: If a feature map is not finite.
    """
    magnitudes = {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}
    # The folded network computes the same maps, in float32 and on the device.
    walk = replace(context.walk, model=context.folded)
    ranks = {unit.name: np.zeros(unit.channels) for unit in walk.units}
    for layer in feature_map_ranks(walk, context.images.to(context.device), context.batch_size).values():
        total = ranks[layer.unit]
        total += layer.ranks.reshape(len(total), -1).sum(axis=1)
    return {name: _ties_broken(total, magnitudes[name]) for name, total in ranks.items()}


def _ties_broken(ranks: Floats, magnitudes: Floats) -> Floats:
    """Ranks, with a share of magnitude that is at most half of the least difference between any two ranks."""
    # Sums of the same fractions in another order differ in the last bits; one rank in one image differs by far more.
    levels = ranks.round(12)
    gap = np.diff(np.unique(levels)).min(initial=1.0)
    return np.asarray(levels + 0.5 * gap * magnitudes / max(magnitudes.max(), np.finfo(np.float64).tiny))
