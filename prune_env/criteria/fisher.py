"""Fisher information: how much a channel's weights move the network's own predictions.

The true Fisher, with labels drawn from the network's own softmax, is the Gauss-Newton part of the Hessian; it does not
vanish where the network is right and certain of it, as the empirical one, of the data's labels, does (Kunstner et al.,
NeurIPS 2019). The factor 1/2 makes a score the predicted rise of the mean cross-entropy.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.curvature import Batches, Loss, Weights, channel_quadratics, image_gradients
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    weights: Weights,
    generator: torch.Generator | None = None,
    loss: Loss = F.cross_entropy,
) -> dict[str, Tensor]:
    """H_qq = mean_i g_iq^2, from one gradient for each image.

    Args:
        model: The network in eval mode.
        batches: Images and labels.
        weights: Whose diagonal is asked for.
        generator: Draws the labels from the network's softmax (true Fisher); where it is None, they are the given ones
            (empirical Fisher).
        loss: Of one image's outputs and label.

    Returns:
        By name, float64 and shaped as the weights.
    """
    squares = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    count = 0
    for gradients in image_gradients(model, batches, weights, generator, loss):
        count += 1
        for name, gradient in gradients.items():
            squares[name] += gradient.double().square()
    return {name: total / count for name, total in squares.items()}


@register_criterion("fisher", needs="images", random=True)
def fisher(context: ScoringContext) -> Scores:
    """S_c = 1/2 sum_q w_cq^2 mean_i g_iq^2 with sampled labels, one draw for each image."""
    return _diagonal_scores(context, _generator(context))


@register_criterion("empirical_fisher", needs="labels")
def empirical_fisher(context: ScoringContext) -> Scores:
    """The same with the data's labels; all but zero where the network fits them."""
    return _diagonal_scores(context, None)


@register_criterion("fisher_block", needs="images", random=True)
def fisher_block(context: ScoringContext) -> Scores:
    """S_c = 1/2 w_c^T F w_c = 1/2 mean_i (sum_q w_cq g_iq)^2 over all weights that write a unit's channel.

    The members of a coupled unit go together, so what couples them counts: they are added before squaring
    [our choice].
    """
    totals = {unit.name: np.zeros(unit.channels) for unit in context.walk.units}
    count = 0
    for gradients in image_gradients(context.folded, context.batches(), context.weights, _generator(context)):
        count += 1
        slopes = {
            name: (context.weights[name].detach() * gradient).double().flatten(1).sum(1).cpu().numpy()
            for name, gradient in gradients.items()
        }
        for name, slope in context.summed(slopes).items():
            totals[name] += slope**2
    return {name: 0.5 * total / count for name, total in totals.items()}


def _diagonal_scores(context: ScoringContext, generator: torch.Generator | None) -> Scores:
    diagonal = fisher_diagonal(context.folded, context.batches(), context.weights, generator)
    return context.summed(
        {name: channel_quadratics(weight, diagonal[name]) for name, weight in context.weights.items()}
    )


def _generator(context: ScoringContext) -> torch.Generator:
    return torch.Generator().manual_seed(context.seed)
