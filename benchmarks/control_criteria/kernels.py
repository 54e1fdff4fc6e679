"""One autoencoder for all kernels of a network; a filter's features are statistics of its kernels' features."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from prune_env.criteria.clusters.autoencoder import FilterAutoencoder
from prune_env.criteria.clusters.filters import Filters

HIDDEN = 64
KERNELS_AT_ONCE = 1 << 18
KERNELS_OF_A_STEP = 2048
LARGEST_LATENT = 16
"""Sizes [our choice]; the latent has half as many numbers as a kernel has taps, 5 for 3 x 3."""


def encode_kernels(units: Mapping[str, Filters], seed: int) -> dict[str, Tensor]:
    """Features of filters of any number of inputs, by encoders that all layers share, one for each kernel size.

    The kernels of a filter are a set: the encoder does not see which input a kernel reads. Therefore layers can share
    an encoder, but the features lose this information. Of 1 x 1 kernels, only the distribution of weights is left.

    Args:
        units: Filters by unit.
        seed: Seed of the encoders.

    Returns:
        For each unit, float32 [live, 2 * latent * layers]: mean and standard deviation over the kernels' features.
    """
    by_size: dict[int, list[Tensor]] = defaultdict(list)
    for filters in units.values():
        for layer in filters.layers:
            by_size[layer.shape[2]].append(layer.flatten(0, 1))
    encoders = {}
    for size, kernels in by_size.items():
        encoder = FilterAutoencoder(size, min(LARGEST_LATENT, (size + 1) // 2), HIDDEN, seed)
        encoder.fit(torch.cat(kernels), batch=KERNELS_OF_A_STEP)
        encoders[size] = encoder
    return {
        name: torch.cat([pooled(encoders[layer.shape[2]], layer) for layer in filters.layers], dim=1)
        for name, filters in units.items()
    }


def pooled(encoder: FilterAutoencoder, layer: Tensor) -> Tensor:
    """Mean and standard deviation of the features of each filter's kernels.

    Args:
        encoder: An encoder of kernels.
        layer: float32 [filters, kernels, taps].

    Returns:
        float32 [filters, 2 * latent].
    """
    parts = []
    for some in layer.split(max(1, KERNELS_AT_ONCE // layer.shape[1])):
        latent = encoder.encode(some.flatten(0, 1)).reshape(*some.shape[:2], -1)
        parts.append(torch.cat([latent.mean(dim=1), latent.std(dim=1, correction=0)], dim=1))
    return torch.cat(parts)
