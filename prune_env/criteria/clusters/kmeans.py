"""k-means++ on features, and the one filter of each cluster that stays."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from prune_env.common.arrays import IntArray
from prune_env.criteria.clusters.filters import FloatArray


class Clusters(NamedTuple):
    """What k-means found.

    Attributes:
        labels: int64 [n], each point's cluster.
        centroids: float64 [k, features].
    """

    labels: IntArray
    centroids: FloatArray


def kmeans(features: FloatArray, k: int, seed: int, starts: int = 10) -> Clusters:
    """Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii, SODA 2007), by scikit-learn.

    Args:
        features: float64 [n, features].
        k: Clusters, 1 to n; where fewer points differ, some are empty.
        seed: Of the starts.
        starts: How many, the tightest wins.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Said where fewer than k points differ, which `select_representatives` can deal with.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, n_init=starts, random_state=seed).fit(features)
    return Clusters(found.labels_.astype(np.int64), np.asarray(found.cluster_centers_))


def select_representatives(
    features: FloatArray, labels: IntArray, centroids: FloatArray, norms: FloatArray
) -> IntArray:
    """The point nearest to each centroid; of equally near ones that of the larger norm, then the lower.

    Args:
        features: float64 [n, features].
        labels: int64 [n], each point's cluster.
        centroids: float64 [k, features].
        norms: float64 [n].

    Returns:
        int64 [k], ascending. For an empty cluster the point stays that is farthest from all that stay.
    """
    distances = np.linalg.norm(features - centroids[labels], axis=1)
    # Copies of a filter are not equally far to the last bit.
    nearness = np.round(distances / max(float(distances.max()), 1e-300), 9)
    order = np.lexsort((np.arange(len(labels)), -norms, nearness))
    _, first = np.unique(labels[order], return_index=True)
    chosen = list(order[first])
    gap = cdist(features, features[chosen]).min(axis=1)
    while len(chosen) < len(centroids):
        gap[chosen] = -1.0
        far = np.flatnonzero(gap == gap.max())
        chosen.append(far[np.argmax(norms[far])])
        gap = np.minimum(gap, cdist(features, features[chosen[-1:]])[:, 0])
    return np.sort(np.asarray(chosen, dtype=np.int64))
