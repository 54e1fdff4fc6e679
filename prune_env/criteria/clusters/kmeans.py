"""k-means++ on features, and the choice of one filter per cluster."""

import warnings
from typing import NamedTuple

import numpy as np

from prune_env.common.arrays import IntArray
from prune_env.criteria.clusters.filters import FloatArray


class Clusters(NamedTuple):
    """The result of k-means.

    Attributes:
        labels: int64 [n], the cluster of each point.
        centroids: float64 [k, features].
    """

    labels: IntArray
    centroids: FloatArray


def kmeans(features: FloatArray, k: int, seed: int, starts: int = 10) -> Clusters:
    """Runs scikit-learn's Lloyd algorithm from k-means++ starts (Arthur and Vassilvitskii, SODA 2007).

    Args:
        features: float64 [n, features].
        k: Number of clusters, 1 to n; some are empty if fewer than k points differ.
        seed: Seed of the starts.
        starts: Number of starts; the tightest clusters win.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # scikit-learn warns if fewer than k points differ, but `select_representatives` handles empty clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(k, n_init=starts, random_state=seed).fit(features)
    return Clusters(model.labels_.astype(np.int64), np.asarray(model.cluster_centers_))


def select_representatives(
    features: FloatArray, labels: IntArray, centroids: FloatArray, norms: FloatArray
) -> IntArray:
    """Returns the point nearest to each centroid; ties go to the larger norm, then to the lower index.

    Args:
        features: float64 [n, features].
        labels: int64 [n], the cluster of each point.
        centroids: float64 [k, features].
        norms: float64 [n].

    Returns:
        int64 [k], ascending. An empty cluster gets the point that is farthest from all chosen points.
    """
    from scipy.spatial.distance import cdist  # here, because the import takes time

    distances = np.linalg.norm(features - centroids[labels], axis=1)
    # Round, because the distances of identical filters may differ in the last bit.
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
