"""First-order Taylor: the estimated change of the loss without a channel (Molchanov et al., CVPR 2019)."""

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
"""Input pixels per pass, to bound memory: every map and its gradient are in memory at once [our choice]."""


@register_criterion("taylor", needs="targets")
def taylor(context: ScoringContext) -> Scores:
    """The mean over images of (sum over positions of z dL/dz)^2, summed over all layers that write it.

    z is a layer's output after its folded batch norm, where the paper places its gates. Without z, the loss L of one
    image changes by -z dL/dz to first order. The paper squares the gradient of a mini-batch. Here the gradient of each
    image is squared, so that scores do not depend on the batch size [our choice].

    Raises:
        ModelError: If the network's outputs do not fit the task.
    """
    images = context.images
    size = max(1, min(context.batch_size, PIXELS // images[0, 0].numel()))
    totals: dict[str, npt.NDArray[np.float64]] = {}
    for batch in context.batches(size):
        for name, values in _saliencies(context, list(context.weights), batch).items():
            totals[name] = totals.get(name, 0.0) + values.square().sum(dim=0).cpu().numpy()
    return context.summed({name: total / len(images) for name, total in totals.items()})


def _saliencies(context: ScoringContext, layers: Sequence[str], batch: Batch) -> dict[str, Tensor]:
    """Returns for each layer the sum over positions of z dL/dz, float64 [images, output channels]."""
    model, task = context.folded, context.task
    with _written(model, layers) as written:
        outputs = task.forward(model, batch)
        task.check(outputs, batch)
        # The sum gives each image its own gradient, because images are independent in eval mode.
        loss = task.loss(outputs, batch, "sum")
        gradients = torch.autograd.grad(loss, [output for _, output in written], materialize_grads=True)
    saliencies: dict[str, Tensor] = {}
    for (name, output), gradient in zip(written, gradients, strict=True):
        products = output.detach() * gradient
        if isinstance(model.get_submodule(name), nn.Linear):
            products = products.movedim(-1, 1)
        # A layer may be called several times for an image; without a channel, all calls lose the channel.
        saliencies[name] = saliencies.get(name, 0.0) + products.double().reshape(*products.shape[:2], -1).sum(dim=2)
    return saliencies


@contextmanager
def _written(model: nn.Module, layers: Sequence[str]) -> Iterator[list[tuple[str, Tensor]]]:
    """Collects the outputs of layers while the network runs: name and output, in the order of the calls."""
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs.append((name, output))
        # Pass on a copy, because an in-place activation would overwrite the collected output.
        return output.clone()

    with watching(model, layers, after=keep):
        yield outputs
