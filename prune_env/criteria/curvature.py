"""The loss around a network's weights: gradients of single images, and Hessian-vector products.

These functions take the loss of a network in eval mode as a function of a batch; they need no walk. A curvature is the
curvature of the mean loss over all given images.
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
    """Returns 1/2 sum_q H_qq w_cq^2 per output channel: the second-order change of the loss without it, for diagonal H.

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
    """Yields the gradient of the loss of each single image.

    Args:
        loss: The network's loss.
        batches: Images and targets.
        weights: The weights to differentiate by.

    Yields:
        For each image, gradients by name, shaped as the weights.
    """
    for images, targets in batches:
        for place in range(len(images)):
            image = slice(place, place + 1)
            with torch.enable_grad():
                value = loss(Batch(images[image], targets[image]))
                gradients = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
            yield dict(zip(weights, gradients, strict=True))


def gradient_graph(loss: Loss, batch: Batch, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the gradient of the mean loss, with its graph in memory, for a second differentiation."""
    with torch.enable_grad():
        return torch.autograd.grad(loss(batch), weights, create_graph=True, materialize_grads=True)


def hessian_product(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], vectors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Returns H v, restricted to the given weights, by differentiating the gradient along v (Pearlmutter 1994).

    Args:
        gradients: The result of `gradient_graph` for these weights.
        weights: The weights.
        vectors: v, shaped as the weights.
    """
    return torch.autograd.grad(gradients, weights, vectors, retain_graph=True, materialize_grads=True)
