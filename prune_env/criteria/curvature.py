"""The loss around a network's weights: gradients of single images, and Hessian-vector products.

Everything here is given the loss as a function of a batch, of a network in eval mode, and needs no walk. A curvature is
that of the mean loss over all images given.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_env.data import Batch

Loss = Callable[[Batch], Tensor]
"""A network's mean loss over a batch, a scalar: `ScoringContext.mean_loss`, or one with drawn targets."""

Weights = Mapping[str, Tensor]
"""Weight tensors by name; each requires a gradient."""


def channel_quadratics(weight: Tensor, diagonal: Tensor) -> npt.NDArray[np.float64]:
    """1/2 sum_q H_qq w_cq^2 for each output channel: the second-order change of the loss if it goes, H diagonal.

    Args:
        weight: [channels, ...].
        diagonal: H_qq of each weight, of the same shape.

    Returns:
        float64 [channels].
    """
    products = diagonal.double() * weight.detach().double().square()
    values: npt.NDArray[np.float64] = 0.5 * products.flatten(1).sum(1).cpu().numpy()
    return values


def image_gradients(loss: Loss, batches: Iterable[Batch], weights: Weights) -> Iterator[dict[str, Tensor]]:
    """The gradient of each single image's loss.

    Args:
        loss: The network's loss.
        batches: Images and targets.
        weights: What to differentiate by.

    Yields:
        For each image, gradients shaped as the weights.
    """
    for images, targets in batches:
        for place in range(len(images)):
            one = slice(place, place + 1)
            with torch.enable_grad():
                value = loss(Batch(images[one], targets[one]))
                gradients = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
            yield dict(zip(weights, gradients, strict=True))


def gradient_graph(loss: Loss, batch: Batch, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of the mean loss, which can be differentiated once more; it holds the graph in memory."""
    with torch.enable_grad():
        return torch.autograd.grad(loss(batch), weights, create_graph=True, materialize_grads=True)


def hessian_product(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], vectors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """H v, restricted to the given weights, by differentiating the gradient along v (Pearlmutter 1994).

    Args:
        gradients: Of `gradient_graph`, by these weights.
        weights: The weights.
        vectors: v, shaped as the weights.
    """
    return torch.autograd.grad(gradients, weights, vectors, retain_graph=True, materialize_grads=True)
