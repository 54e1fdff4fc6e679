"""Fisher information: how much a channel's weights change the network's own predictions.

The true Fisher uses targets drawn from the network's own prediction, and equals the Gauss-Newton part of the Hessian.
The empirical Fisher uses the data's targets, and vanishes faster where the network is right and certain (Kunstner
et al., NeurIPS 2019). The factor 1/2 makes a score the predicted rise of the mean loss.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.curvature import Loss, Weights, channel_quadratics, image_gradients
from prune_env.criteria.registry import register_criterion
from prune_env.data import Batch
from prune_env.walk import Scores


def fisher_diagonal(loss: Loss, batches: Iterable[Batch], weights: Weights) -> dict[str, Tensor]:
    """Computes H_qq = mean_i g_iq^2 from one gradient per image.

    Args:
        loss: The network's loss; drawn targets give the true Fisher, the data's targets the empirical Fisher.
        batches: Images and targets.
        weights: The weights to compute the diagonal for.

    Returns:
        By name, float64 and shaped as the weights.
    """
    squares = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    count = 0
    for gradients in image_gradients(loss, batches, weights):
        count += 1
        for name, gradient in gradients.items():
            squares[name] += gradient.double().square()
    return {name: total / count for name, total in squares.items()}


@register_criterion("fisher", needs="images", random=True)
def fisher(context: ScoringContext) -> Scores:
    """S_c = 1/2 sum_q w_cq^2 mean_i g_iq^2 with sampled targets, one draw per image."""
    return diagonal_scores(context, _sampled_loss(context))


@register_criterion("fisher_block", needs="images", random=True)
def fisher_block(context: ScoringContext) -> Scores:
    """S_c = 1/2 w_c^T F w_c = 1/2 mean_i (sum_q w_cq g_iq)^2 over all weights that write a unit's channel.

    The members of a coupled unit are cut together, so their terms are added before squaring, which includes the
    coupling between members [our choice].
    """
    totals = {unit.name: np.zeros(unit.channels) for unit in context.walk.units}
    count = 0
    for gradients in image_gradients(_sampled_loss(context), context.batches(), context.weights):
        count += 1
        slopes = {
            name: (context.weights[name].detach() * gradient).double().flatten(1).sum(1).cpu().numpy()
            for name, gradient in gradients.items()
        }
        for name, slope in context.summed(slopes).items():
            totals[name] += slope**2
    return {name: 0.5 * total / count for name, total in totals.items()}


def diagonal_scores(context: ScoringContext, loss: Loss) -> Scores:
    """Returns S_c = 1/2 sum_q w_cq^2 mean_i g_iq^2 for the gradients of a loss."""
    diagonal = fisher_diagonal(loss, context.batches(), context.weights)
    return context.summed(
        {name: channel_quadratics(weight, diagonal[name]) for name, weight in context.weights.items()}
    )


def _sampled_loss(context: ScoringContext) -> Loss:
    return context.sampled_loss(torch.Generator().manual_seed(context.seed))
