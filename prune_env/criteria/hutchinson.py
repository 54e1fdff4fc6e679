"""Hutchinson: the diagonal of the Hessian of the mean loss, estimated with random probes.

The factor 1/2 makes a score the predicted change of the loss. Curvature can be negative where a network is not at a
minimum. The score is the magnitude of a channel's sum [our choice], because the loss is not flat at negative curvature
either. Magnitudes of single weights would turn the noise of the estimate into a bias.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.curvature import Loss, Weights, channel_quadratics, gradient_graph, hessian_product
from prune_env.criteria.registry import register_criterion
from prune_env.data import Batch
from prune_env.walk import Scores

IMAGES_AT_ONCE = 8
"""Images per graph. Few images save memory; and for equal work, many probes on few images each have less variance."""

PROBES = 2
"""Hutchinson probes per batch [our choice]: 128 probes for 512 images."""


def hutchinson_diagonal(
    loss: Loss,
    batches: Iterable[Batch],
    weights: Weights,
    probes: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Estimates H_qq as the mean of v_q (H v)_q over Rademacher vectors v (Bekas et al. 2007); unbiased.

    Args:
        loss: The network's mean loss over a batch.
        batches: Images and targets; the mean loss is over all of them.
        weights: The weights to estimate the diagonal for.
        probes: New random vectors per batch.
        generator: The generator of the random vectors.

    Returns:
        By name, float64 and shaped as the weights; can be negative.
    """
    names, tensors = list(weights), list(weights.values())
    sums = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in tensors]
    count = 0
    for batch in batches:
        images = len(batch.images)
        count += images
        gradients = gradient_graph(loss, batch, tensors)
        for _ in range(probes):
            signs = [_signs(tensor, generator) for tensor in tensors]
            for total, sign, product in zip(sums, signs, hessian_product(gradients, tensors, signs), strict=True):
                total += images / probes * (sign * product)
    return {name: total / count for name, total in zip(names, sums, strict=True)}


@register_criterion("hutchinson", needs="targets", random=True)
def hutchinson(context: ScoringContext) -> Scores:
    """S_c = 1/2 |sum_q H_qq w_cq^2| with Hutchinson's estimate of H_qq."""
    generator = torch.Generator().manual_seed(context.seed)
    batches = context.batches(min(context.batch_size, IMAGES_AT_ONCE))
    return diagonal_scores(context, hutchinson_diagonal(context.mean_loss, batches, context.weights, PROBES, generator))


def diagonal_scores(context: ScoringContext, diagonal: Weights) -> Scores:
    """Returns S_c = 1/2 |sum_q H_qq w_cq^2| for H_qq by layer, shaped as the weights."""
    sums = context.summed(
        {name: channel_quadratics(weight, diagonal[name]) for name, weight in context.weights.items()}
    )
    return {unit: np.abs(values) for unit, values in sums.items()}


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (2.0 * torch.randint(2, like.shape, generator=generator) - 1.0).to(like)
