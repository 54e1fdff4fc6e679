"""What learned features of filters have to beat: shared kernel features, principal components, the weights."""

from collections.abc import Mapping

import numpy as np

from benchmarks.control_criteria.kernels import encode_kernels
from prune_env.criteria import ScoringContext, register_criterion
from prune_env.criteria.clusters import Filters, latent_size, nested_scores
from prune_env.criteria.clusters.filters import FloatArray, compact
from prune_env.walk import Scores


@register_criterion("clusters_shared", needs="images", random=True)
def clusters_shared(context: ScoringContext) -> Scores:
    """Clusters by kernel features that all units share."""
    return nested_scores(context, shared)


@register_criterion("clusters_pca", needs="images", random=True)
def clusters_pca(context: ScoringContext) -> Scores:
    """Clusters by principal components."""
    return nested_scores(context, pca)


@register_criterion("clusters_raw", needs="images", random=True)
def clusters_raw(context: ScoringContext) -> Scores:
    """Clusters by the weights themselves."""
    return nested_scores(context, raw)


def shared(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """Pooled latents of kernels, by encoders that all units share."""
    return {name: latent.double().numpy() for name, latent in encode_kernels(units, seed).items()}


def pca(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """As many principal components as `learned_features` has latents."""
    from sklearn.decomposition import (
        PCA,
    )  # Import scikit-learn here: the import takes a second, and only these criteria need it.

    found = {}
    for name, filters in units.items():
        points = compact(filters.rows)
        size = min(latent_size(len(points)), *points.shape)
        found[name] = np.asarray(PCA(size, svd_solver="full", random_state=seed).fit_transform(points))
    return found


def raw(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:  # noqa: ARG001
    """The weights themselves, which the paper compares its features with."""
    return {name: compact(filters.rows) for name, filters in units.items()}
