"""Filter clusters: one filter of each cluster of similar filters stays (Li, Zhu and Sun, ICMEW 2019, pp. 312-317).

The paper learns features of a layer's filters, clusters the features, and keeps the filter nearest to each centroid.
The paper does not specify the feature learner or the number of clusters. Here an autoencoder learns the features [our
choice], and the search decides the width.
"""

from prune_env.criteria.clusters.autoencoder import FilterAutoencoder
from prune_env.criteria.clusters.criteria import clusters, nested_scores, score_widths
from prune_env.criteria.clusters.features import Features, latent_size, learned_features
from prune_env.criteria.clusters.filters import Filters, live_filters
from prune_env.criteria.clusters.kmeans import Clusters, kmeans, select_representatives
from prune_env.criteria.clusters.nested import nested_order

__all__ = [
    "Clusters",
    "Features",
    "FilterAutoencoder",
    "Filters",
    "clusters",
    "kmeans",
    "latent_size",
    "learned_features",
    "live_filters",
    "nested_order",
    "nested_scores",
    "score_widths",
    "select_representatives",
]
