"""Top Hessian eigenvalues: how sharply the loss rises around a layer's weights, for pruning rates by layer.

After Yang and Liu (Neurocomputing 2022), who derive a layer's pruning rate from the layer's Hessian eigenvalues.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prune_env.common.arrays import IntArray
from prune_env.common.errors import EvaluationError
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.curvature import gradient_graph, hessian_product
from prune_env.walk.unit import Unit


def top_eigenvalue(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    tolerance: float = 1e-3,
    iterations: int = 50,
) -> float:
    """Returns the eigenvalue of largest magnitude of a symmetric matrix, by power iteration.

    Args:
        product: Multiplies the matrix with a vector [n].
        start: A random vector [n], not zero.
        tolerance: Stops when the Rayleigh quotient changes by less than this share of itself.
        iterations: Largest number of products.

    Returns:
        The last Rayleigh quotient. Its magnitude never exceeds the true magnitude, and is too small if the next
        eigenvalue is close or the iterations run out. 0 for the zero matrix.
    """
    vector, value = start / start.norm(), math.inf
    for _ in range(iterations):
        image = product(vector)
        previous, value = value, float(vector @ image)
        length = image.norm()
        if not length > 0 or abs(value - previous) <= tolerance * abs(value):
            break
        vector = image / length
    return value


PIXELS = 2**16
"""Input pixels per graph that is differentiated twice, to bound memory: 64 images of 32 x 32."""


def layer_eigenvalues(
    context: ScoringContext, images: int | None = None, tolerance: float = 1e-2, iterations: int = 20
) -> dict[str, float]:
    """Returns each free unit's top Hessian eigenvalue of the mean loss, restricted to the weights that write the unit.

    Uses folded weights. Keeps the graph of all images in memory, so that an iteration needs no forward pass.

    Args:
        context: The network and its images, of which the first are used; ``seed`` seeds the starting vectors.
        images: Number of images; None for as many as have `PIXELS`, between 8 and 64 [our choice].
        tolerance: The tolerance of `top_eigenvalue`.
        iterations: Largest number of Hessian-vector products per unit.

    Returns:
        By unit name, in forward order, the magnitude of the eigenvalue of largest magnitude.

    Raises:
        EvaluationError: If an eigenvalue is not finite; names the unit.
    """
    generator = torch.Generator().manual_seed(context.seed)
    pixels = context.images[0, 0].numel()
    batch = next(context.batches(images or max(8, min(64, PIXELS // pixels))))
    graph = gradient_graph(context.mean_loss, batch, list(context.weights.values()))
    gradients = dict(zip(context.weights, graph, strict=True))
    values = {}
    for unit in context.walk.free:
        product, size = _restricted_product(context, unit, gradients)
        start = torch.randn(size, generator=generator).to(context.device)
        value = abs(top_eigenvalue(product, start, tolerance, iterations))
        if not math.isfinite(value):
            raise EvaluationError(
                f"The Hessian of unit {unit.name!r} is not finite. Check the network's weights and the data's scaling."
            )
        values[unit.name] = value
    return values


def written_rows(context: ScoringContext, unit: Unit) -> dict[str, IntArray]:
    """Returns for each layer that writes a unit the layer's output channels per unit channel, [channels, r]."""
    rows: dict[str, IntArray] = {}
    for producer in context.producers(unit):
        known = rows.get(producer.module)
        rows[producer.module] = producer.index if known is None else np.concatenate([known, producer.index], axis=1)
    return rows


def _restricted_product(
    context: ScoringContext, unit: Unit, gradients: dict[str, Tensor]
) -> tuple[Callable[[Tensor], Tensor], int]:
    """Returns the product of the unit's Hessian block with a vector, and the length of the vector."""
    rows = {name: index.ravel() for name, index in written_rows(context, unit).items()}
    weights = [context.weights[name] for name in rows]
    parts = [weight.detach()[index] for weight, index in zip(weights, rows.values(), strict=True)]
    sizes = [part.numel() for part in parts]

    def product(vector: Tensor) -> Tensor:
        vectors = [torch.zeros_like(weight) for weight in weights]
        for full, part, piece, index in zip(vectors, parts, vector.split(sizes), rows.values(), strict=True):
            full[index] = piece.view_as(part)
        products = hessian_product([gradients[name] for name in rows], weights, vectors)
        return torch.cat([full[index].flatten() for full, index in zip(products, rows.values(), strict=True)])

    return product, sum(sizes)
