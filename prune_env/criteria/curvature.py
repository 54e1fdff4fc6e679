"""The loss around a network's weights: gradients of single images, and Hessian-vector products.

Everything here needs a network in eval mode and no walk. A curvature is that of the mean loss over all images given.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.errors import EvaluationError

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss, a scalar, of a network's outputs and labels."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images [N, C, H, W] and labels int64 [N], N at a time."""

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


def image_gradients(
    model: nn.Module,
    batches: Batches,
    weights: Weights,
    generator: torch.Generator | None = None,
    loss: Loss = F.cross_entropy,
) -> Iterator[dict[str, Tensor]]:
    """The gradient of each single image's loss.

    Args:
        model: The network in eval mode.
        batches: Images and labels.
        weights: What to differentiate by.
        generator: Draws each label from the network's own softmax; where it is None, the labels are those given.
        loss: Of one image's outputs and label.

    Yields:
        For each image, gradients shaped as the weights.

    Raises:
        EvaluationError: If labels are drawn and an output is not a finite number.
    """
    for images, labels in batches:
        for place in range(len(images)):
            one = slice(place, place + 1)
            with torch.enable_grad():
                outputs = model(images[one])
                chosen = labels[one] if generator is None else sampled_labels(outputs, generator)
                gradients = torch.autograd.grad(loss(outputs, chosen), list(weights.values()), materialize_grads=True)
            yield dict(zip(weights, gradients, strict=True))


def sampled_labels(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Labels int64 [N] drawn from the softmax of outputs [N, classes], on the same device.

    Raises:
        EvaluationError: If an output is not a finite number.
    """
    if not outputs.isfinite().all():
        raise EvaluationError("An output is not finite; check the network's weights and the data's scaling.")
    chances = outputs.detach().double().cpu().softmax(1)
    return torch.multinomial(chances, 1, generator=generator).squeeze(1).to(outputs.device)


def gradient_graph(
    model: nn.Module, images: Tensor, labels: Tensor, weights: Sequence[Tensor], loss: Loss = F.cross_entropy
) -> tuple[Tensor, ...]:
    """The gradient of the mean loss, which can be differentiated once more; it holds the graph in memory."""
    with torch.enable_grad():
        return torch.autograd.grad(loss(model(images), labels), weights, create_graph=True, materialize_grads=True)


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
