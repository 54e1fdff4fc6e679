"""Nested clusters for all widths: a filter that stays at one width also stays at all larger widths.

A search tries thousands of widths with one score per channel, but clusters differ between widths. So this module walks
down a ladder of widths [our choice]: each rung clusters all filters anew, and keeps those filters of the rung above
that match the centroids best.
"""

import numpy as np

from prune_env.common.arrays import IntArray
from prune_env.criteria.clusters.filters import FloatArray
from prune_env.criteria.clusters.kmeans import kmeans

EVERY_WIDTH = 64
RUNGS = 24


def rungs(channels: int) -> list[int]:
    """Returns the ladder's widths, below ``channels`` and down to 1: all for up to 64 channels, else evenly spaced."""
    count = channels if channels <= EVERY_WIDTH else RUNGS
    widths = np.linspace(channels, 1, count).round().astype(int)
    return [int(width) for width in widths[1:]]


def nested_order(features: FloatArray, seed: int, starts: int = 3) -> IntArray:
    """Returns the order in which filters are removed as the width falls.

    Args:
        features: float64 [n, features].
        seed: Seed of k-means.
        starts: Starts of k-means at each rung.

    Returns:
        int64 [n], the first to remove first; within one rung, the filter farthest from all centroids first.
    """
    # here, because the imports take time
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    kept = np.arange(len(features))
    going: list[int] = []
    for width in rungs(len(features)):
        distances = cdist(kmeans(features, width, seed, starts).centroids, features[kept])
        staying = linear_sum_assignment(distances)[1]
        leaving = np.setdiff1d(np.arange(len(kept)), staying)
        leaving = leaving[np.argsort(-distances.min(axis=0)[leaving], kind="stable")]
        going += kept[leaving].tolist()
        kept = kept[np.sort(staying)]
    return np.asarray([*going, *kept.tolist()], dtype=np.int64)
