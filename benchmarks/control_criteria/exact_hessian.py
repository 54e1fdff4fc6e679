"""The exact Hessian of the mean loss, for small networks: its diagonal, and a whole channel's quadratic form.

`prune_env.criteria.hutchinson` estimates the diagonal, and says how curvature becomes a score.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_env.common.errors import ConfigError
from prune_env.criteria import ScoringContext, register_criterion
from prune_env.criteria.curvature import Loss, Weights, gradient_graph, hessian_product
from prune_env.criteria.eigenvalues import written_rows
from prune_env.criteria.hutchinson import IMAGES_AT_ONCE, diagonal_scores
from prune_env.data import Batch
from prune_env.walk import Scores

MOST_WEIGHTS = 10_000
"""Weights for which the exact diagonal is computed."""

MOST_CHANNELS = 256
"""Channels for which the exact quadratic form is computed."""


def exact_diagonal(loss: Loss, batches: Iterable[Batch], weights: Weights) -> dict[str, Tensor]:
    """H_qq from one Hessian-vector product for each weight and batch.

    Args:
        loss: The network's mean loss over a batch.
        batches: Images and targets; the Hessian is that of the mean loss over all of them.
        weights: The weights of the diagonal, by name.

    Returns:
        The diagonal by name, float64, shaped as the weights; entries can be negative.

    Raises:
        ConfigError: If there are more than `MOST_WEIGHTS` weights.
    """
    size = sum(weight.numel() for weight in weights.values())
    if size > MOST_WEIGHTS:
        raise ConfigError(
            f"criterion.name: 'hessian' takes a Hessian-vector product for each of the {size} weights; at most "
            f"{MOST_WEIGHTS} are allowed. Use 'hutchinson', its estimate, or 'lobs'."
        )
    sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    count = 0
    for batch in batches:
        images = len(batch.images)
        count += images
        gradients = gradient_graph(loss, batch, list(weights.values()))
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            for place in range(weight.numel()):
                one = torch.zeros_like(weight)
                one.view(-1)[place] = 1.0
                (column,) = hessian_product([gradient], [weight], [one])
                sums[name].view(-1)[place] += images * column.flatten()[place]
    return {name: total / count for name, total in sums.items()}


@register_criterion("hessian", needs="targets")
def hessian(context: ScoringContext) -> Scores:
    """S_c = 1/2 |sum_q H_qq w_cq^2| with the exact H_qq; for small networks only.

    Raises:
        ConfigError: If there are more than `MOST_WEIGHTS` weights.
    """
    return diagonal_scores(context, exact_diagonal(context.mean_loss, context.batches(), context.weights))


@register_criterion("hessian_block", needs="targets")
def hessian_block(context: ScoringContext) -> Scores:
    """S_c = 1/2 |w_c^T H w_c| over all weights that write a unit's channel, the members of a coupled unit together.

    The second derivatives between the members count, too [our choice]. For every channel of every unit, the score costs
    a Hessian-vector product, some five forward passes over all images: a check for small networks and few images.

    Raises:
        ConfigError: If there are more than `MOST_CHANNELS` channels.
    """
    channels = sum(unit.channels for unit in context.walk.units)
    if channels > MOST_CHANNELS:
        raise ConfigError(
            f"criterion.name: 'hessian_block' takes Hessian-vector products for each of the {channels} channels; at "
            f"most {MOST_CHANNELS} are allowed. Use 'fisher_block', which needs none, or 'lobs_block'."
        )
    totals = {unit.name: np.zeros(unit.channels) for unit in context.walk.units}
    count = 0
    for batch in context.batches(min(context.batch_size, IMAGES_AT_ONCE)):
        images = len(batch.images)
        count += images
        graph = gradient_graph(context.mean_loss, batch, list(context.weights.values()))
        gradients = dict(zip(context.weights, graph, strict=True))
        for unit in context.walk.units:
            rows = written_rows(context, unit)
            for channel in range(unit.channels):
                chosen = {name: index[channel] for name, index in rows.items()}
                totals[unit.name][channel] += images * _quadratic(context.weights, gradients, chosen)
    return {name: np.abs(0.5 * total / count) for name, total in totals.items()}


def _quadratic(weights: Weights, gradients: Weights, rows: Mapping[str, npt.NDArray[np.int64]]) -> float:
    """w^T H w of the weights in the given rows."""
    tensors = [weights[name] for name in rows]
    vectors = [torch.zeros_like(tensor) for tensor in tensors]
    for vector, tensor, index in zip(vectors, tensors, rows.values(), strict=True):
        vector[index] = tensor.detach()[index]
    products = hessian_product([gradients[name] for name in rows], tensors, vectors)
    return sum(float((vector * product).double().sum()) for vector, product in zip(vectors, products, strict=True))
