"""Criteria that lost everywhere, kept as controls: `criterion.name=benchmarks.control_criteria:NAME`.

Importing the package registers the criteria under their bare names too.
"""

from benchmarks.control_criteria.clusters import clusters_pca, clusters_raw, clusters_shared
from benchmarks.control_criteria.exact_hessian import hessian, hessian_block
from benchmarks.control_criteria.second_order import empirical_fisher, lobs_diagonal

__all__ = [
    "clusters_pca",
    "clusters_raw",
    "clusters_shared",
    "empirical_fisher",
    "hessian",
    "hessian_block",
    "lobs_diagonal",
]
