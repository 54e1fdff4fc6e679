"""Learned features of filters, for the comparison of filters."""

from collections.abc import Callable, Mapping
from math import ceil

import torch

from prune_env.criteria.clusters.autoencoder import FilterAutoencoder
from prune_env.criteria.clusters.filters import Filters, FloatArray, compact

Features = Callable[[Mapping[str, Filters], int], dict[str, FloatArray]]
"""Takes each unit's live filters and a seed; returns features float64 [live, any] by unit."""


def latent_size(count: int) -> int:
    """Returns the features per filter of a unit with ``count`` filters: a quarter of them, 32 at most [our choice]."""
    return min(32, ceil(count / 4))


def learned_features(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """Returns the latent numbers of one autoencoder per unit."""
    features = {}
    for name, filters in units.items():
        rows = torch.from_numpy(compact(filters.rows)).float()
        scale = rows.square().mean().sqrt().clamp_min(1e-12)
        hidden = max(1, min(256, filters.rows.shape[1] // 2))
        learner = FilterAutoencoder(rows.shape[1], latent_size(len(rows)), hidden, seed)
        features[name] = learner.fit(rows / scale).double().numpy()
    return features
