"""What filters are compared by: learned features."""

from collections.abc import Callable, Mapping
from math import ceil

import torch

from prune_env.criteria.clusters.autoencoder import FilterAutoencoder
from prune_env.criteria.clusters.filters import Filters, FloatArray, compact

Features = Callable[[Mapping[str, Filters], int], dict[str, FloatArray]]
"""Gives each unit's live filters, with a seed, features float64 [live, any]."""


def latent_size(count: int) -> int:
    """Numbers of the features of a unit of ``count`` filters: a quarter as many, 32 at most [our choice]."""
    return min(32, ceil(count / 4))


def learned_features(units: Mapping[str, Filters], seed: int) -> dict[str, FloatArray]:
    """The latents of an autoencoder of each unit's own."""
    found = {}
    for name, filters in units.items():
        rows = torch.from_numpy(compact(filters.rows)).float()
        scale = rows.square().mean().sqrt().clamp_min(1e-12)
        hidden = max(1, min(256, filters.rows.shape[1] // 2))
        learner = FilterAutoencoder(rows.shape[1], latent_size(len(rows)), hidden, seed)
        found[name] = learner.fit(rows / scale).double().numpy()
    return found
