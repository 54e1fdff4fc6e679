"""What filters are compared by: learned features, and the controls that they have to beat."""

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np
import torch

from prune_env.criteria.clusters.autoencoder import FilterAutoencoder
from prune_env.criteria.clusters.filters import Filters, FloatArray, compact
from prune_env.criteria.clusters.kernels import encode_kernels

Features = Callable[[Mapping[str, Filters], int], dict[str, FloatArray]]
"""Gives each unit's live filters, with a seed, features float64 [live, any]."""


def latent_size(count: int) -> int:
    """Numbers of the features of a unit of ``count`` filters: a quarter as many, 32 at most [our choice]."""
    return min(32, ceil(count / 4))


def autoencoder(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """The latents of an autoencoder of each unit's own."""
    found = {}
    for name, filters in units.items():
        rows = torch.from_numpy(compact(filters.rows)).float()
        scale = rows.square().mean().sqrt().clamp_min(1e-12)
        hidden = max(1, min(256, filters.rows.shape[1] // 2))
        learner = FilterAutoencoder(rows.shape[1], latent_size(len(rows)), hidden, seed)
        found[name] = learner.fit(rows / scale).double().numpy()
    return found


def shared(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """Pooled latents of kernels, by encoders that all units share."""
    return {name: latent.double().numpy() for name, latent in encode_kernels(units, seed).items()}


def pca(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """As many principal components as `autoencoder` has latents."""
    from sklearn.decomposition import PCA  # A second to import, which only these criteria need.

    found = {}
    for name, filters in units.items():
        points = compact(filters.rows)
        size = min(latent_size(len(points)), *points.shape)
        found[name] = np.asarray(PCA(size, svd_solver="full", random_state=seed).fit_transform(points))
    return found


def raw(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:  # noqa: ARG001
    """The weights themselves, which the paper sets itself off from."""
    return {name: compact(filters.rows) for name, filters in units.items()}


FEATURES: dict[str, Features] = {"autoencoder": autoencoder, "shared": shared, "pca": pca, "raw": raw}
