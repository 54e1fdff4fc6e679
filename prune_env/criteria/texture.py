"""Texture: strong filters whose skeleton is unlike the others' (after CDP, Li et al., AI Communications 2023)."""

import math

import torch
from torch import Tensor

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("texture", needs="images")
def texture(context: ScoringContext) -> Scores:
    """The strength of a filter's skeleton, times 1 to 2 for its angle to the layer's mean skeleton.

    A skeleton holds the norm of each stripe: the filter's weights at one position of the kernel, over all inputs. CDP
    measures how alike the textures of a layer's filters are by the angles of their skeletons to the mean skeleton. Here
    a filter counts for more the less it is like the mean: ``sum(s) * (1 + angle / 90 degrees)``. The form of the score
    is our choice: the source has a penalty and no score of channels. With 1 x 1 kernels all angles are 0. Images are
    needed to fold batch norms into the weights, and for nothing else.
    """
    return context.summed(
        {name: _distinct_strength(weight.detach().double()).cpu().numpy() for name, weight in context.weights.items()}
    )


def _distinct_strength(weight: Tensor) -> Tensor:
    """Returns the scores of one layer's filters, [filters], from its weight [filters, inputs, ...]."""
    skeleton = weight.flatten(2).norm(dim=1) if weight.ndim > 2 else weight.norm(dim=1, keepdim=True)
    cosine = torch.cosine_similarity(skeleton, skeleton.mean(dim=0, keepdim=True), dim=1).clamp(-1.0, 1.0)
    strength: Tensor = skeleton.sum(dim=1)
    return strength * (1.0 + cosine.arccos() / (math.pi / 2.0))
