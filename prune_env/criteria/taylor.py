"""First-order Taylor: what the loss would lose with a channel (Molchanov et al., CVPR 2019)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.hooks import watching
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import register_criterion
from prune_env.data import Batch
from prune_env.walk import Scores

PIXELS = 2**19
"""Pixels of all images of one pass: every map and its gradient are in memory at once [our choice]."""


@register_criterion("taylor", needs="targets")
def taylor(context: ScoringContext) -> Scores:
    """The mean over images of (sum over positions of z dL/dz)^2, summed over all that writes the channel.

    z is what a layer writes after its folded batch norm, where the paper has its gates; without it, dL is -z dL/dz to
    first order. L is the loss of one image. The paper squares the gradient of a mini-batch; here each
    image's is squared, so that the batch size does not matter [our choice].

    Raises:
        ModelError: If the network's outputs are not those of a network for the task.
    """
    images = context.images
    size = max(1, min(context.batch_size, PIXELS // images[0, 0].numel()))
    totals: dict[str, npt.NDArray[np.float64]] = {}
    for batch in context.batches(size):
        for name, values in _saliencies(context, list(context.weights), batch).items():
            totals[name] = totals.get(name, 0.0) + values.square().sum(dim=0).cpu().numpy()
    return context.summed({name: total / len(images) for name, total in totals.items()})


def _saliencies(context: ScoringContext, layers: Sequence[str], batch: Batch) -> dict[str, Tensor]:
    """For each layer the sum over positions of z dL/dz, float64 [images, output channels]."""
    model, task = context.folded, context.task
    with _written(model, layers) as written:
        outputs = task.forward(model, batch)
        task.check(outputs, batch)
        # Summed, not averaged: in eval mode each image's gradient is then its own.
        loss = task.loss(outputs, batch, "sum")
        gradients = torch.autograd.grad(loss, [output for _, output in written], materialize_grads=True)
    found: dict[str, Tensor] = {}
    for (name, output), gradient in zip(written, gradients, strict=True):
        products = output.detach() * gradient
        if isinstance(model.get_submodule(name), nn.Linear):
            products = products.movedim(-1, 1)
        # A layer may be called several times for an image; without it, all of that is gone.
        found[name] = found.get(name, 0.0) + products.double().reshape(*products.shape[:2], -1).sum(dim=2)
    return found


@contextmanager
def _written(model: nn.Module, layers: Sequence[str]) -> Iterator[list[tuple[str, Tensor]]]:
    """Collects what layers write while the network runs, by name, in the order of the calls."""
    found: list[tuple[str, Tensor]] = []

    def keep(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found.append((name, output))
        # The network goes on with a copy, because an activation in place would overwrite what is kept.
        return output.clone()

    with watching(model, layers, after=keep):
        yield found
