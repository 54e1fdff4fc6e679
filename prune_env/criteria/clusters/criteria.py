"""The registered criterion, and the paper's method for known widths."""

from collections.abc import Mapping

import numpy as np

from prune_env.common.arrays import IntArray
from prune_env.criteria.clusters.features import Features, learned_features
from prune_env.criteria.clusters.filters import Filters, FloatArray, live_filters
from prune_env.criteria.clusters.kmeans import kmeans, select_representatives
from prune_env.criteria.clusters.nested import nested_order
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("clusters", needs="images", random=True)
def clusters(context: ScoringContext) -> Scores:
    """Nested clusters of filters, by features of one autoencoder per unit; images serve only to fold batch norms."""
    return nested_scores(context, learned_features)


def score_widths(context: ScoringContext, widths: Mapping[str, int], features: Features = learned_features) -> Scores:
    """Scores by the paper's method: clusters each unit at exactly its width, independently of other widths.

    Args:
        context: The network.
        widths: Channels that stay, by unit name, at least 1.
        features: Computes the features that the clusters are based on.

    Returns:
        For each named unit, float64 [channels]: 2 for representatives, 1 for other live filters, 0 for dead filters. A
        plan with the same widths keeps the representatives.
    """
    units = {name: filters for name, filters in _free_filters(context).items() if name in widths}
    scores = {}
    for name, points in features(units, context.seed).items():
        filters, width = units[name], min(widths[name], len(points))
        chosen = select_representatives(points, *kmeans(points, width, context.seed), filters.norms)
        scores[name] = _placed(context, name, filters, 1 + np.isin(np.arange(len(points)), chosen))
    return scores


def nested_scores(context: ScoringContext, features: Features) -> Scores:
    """Returns for each free unit its channels' positions in `nested_order`, for other units the L1 norms."""
    units = _free_filters(context)
    scores = {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}
    for name, points in features(units, context.seed).items():
        # Live filters start at 1, so that dead filters, at 0, are removed first.
        places = 1 + np.argsort(nested_order(points, context.seed))
        scores[name] = _placed(context, name, units[name], places)
    return scores


def _free_filters(context: ScoringContext) -> dict[str, Filters]:
    """Returns the live filters of every free unit that has any."""
    units = {unit.name: live_filters(context, unit) for unit in context.walk.free}
    return {name: filters for name, filters in units.items() if len(filters.live)}


def _placed(context: ScoringContext, name: str, filters: Filters, values: IntArray) -> FloatArray:
    """Places values of live filters at their channels; dead channels get zero."""
    channels = next(unit.channels for unit in context.walk.units if unit.name == name)
    scores = np.zeros(channels)
    scores[filters.live] = values
    return scores
