"""The registered criterion, and the paper's own way where the widths are known."""

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
    """By the latents of an autoencoder of each unit's own. Images are needed to fold batch norms, no more."""
    return nested_scores(context, learned_features)


def score_widths(context: ScoringContext, widths: Mapping[str, int], features: Features = learned_features) -> Scores:
    """The paper's own way: each unit clustered at exactly the width it gets, without regard to others.

    Args:
        context: The network.
        widths: Channels that stay, by unit name, at least 1.
        features: What filters are compared by.

    Returns:
        For each unit that is named, float64 [channels]: 2 for representatives, 1 for other live filters, 0 for dead
        ones. A plan of the same widths keeps the representatives.
    """
    units = {name: filters for name, filters in _free_filters(context).items() if name in widths}
    found = {}
    for name, points in features(units, context.seed).items():
        filters, width = units[name], min(widths[name], len(points))
        chosen = select_representatives(points, *kmeans(points, width, context.seed), filters.norms)
        found[name] = _placed(context, name, filters, 1 + np.isin(np.arange(len(points)), chosen))
    return found


def nested_scores(context: ScoringContext, features: Features) -> Scores:
    """For each unit the place of its channels in `nested_order`; norms where nothing may be cut."""
    units = _free_filters(context)
    scores = {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}
    for name, points in features(units, context.seed).items():
        # The dead come last, whatever their cluster.
        places = 1 + np.argsort(nested_order(points, context.seed))
        scores[name] = _placed(context, name, units[name], places)
    return scores


def _free_filters(context: ScoringContext) -> dict[str, Filters]:
    """The filters of every unit that may be cut and has any that are not zero."""
    units = {unit.name: live_filters(context, unit) for unit in context.walk.free}
    return {name: filters for name, filters in units.items() if len(filters.live)}


def _placed(context: ScoringContext, name: str, filters: Filters, values: IntArray) -> FloatArray:
    """Values of live filters at their channels, zero at the dead ones."""
    channels = next(unit.channels for unit in context.walk.units if unit.name == name)
    scores = np.zeros(channels)
    scores[filters.live] = values
    return scores
