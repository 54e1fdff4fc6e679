"""Clusters for every width at once: what stays at a width also stays at all wider ones.

A search tries thousands of widths and knows one score per channel; clusters differ from width to width. So a ladder of
widths is walked down [our choice]: at each rung all filters are clustered anew, and of those that the rung above kept,
the ones stay that match the centroids best.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from prune_env.common.arrays import IntArray
from prune_env.criteria.clusters.filters import FloatArray
from prune_env.criteria.clusters.kmeans import kmeans

EVERY_WIDTH = 64
RUNGS = 24


def rungs(channels: int) -> list[int]:
    """Widths of the ladder from ``channels - 1`` down to 1: all up to 64, evenly spaced ones above that."""
    count = channels if channels <= EVERY_WIDTH else RUNGS
    widths = np.linspace(channels, 1, count).round().astype(int)
    return [int(width) for width in widths[1:]]


def nested_order(features: FloatArray, seed: int, starts: int = 3) -> IntArray:
    """The order in which filters go as the width falls.

    Args:
        features: float64 [n, features].
        seed: Of k-means.
        starts: Of k-means at each rung.

    Returns:
        int64 [n], the first to go first; of those that go at one rung, the farthest from all centroids.
    """
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
