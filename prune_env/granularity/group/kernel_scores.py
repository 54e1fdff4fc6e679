"""Kernel scores: how much each filter of a convolution needs each input.

A group of filters reads the inputs with the highest sums of scores over its filters. AGSPRL trains selectors for this,
which a search cannot do for every plan; scores instead of selectors are our choice.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.patch_covariance import AT_ONCE, patches, watch

KernelCriterion = Literal["norm", "second_order"]
KernelScores = dict[str, npt.NDArray[np.float64]]


def score_kernels(kind: KernelCriterion, context: ScoringContext, names: Collection[str]) -> KernelScores:
    """Scores each kernel of some convolutions, with batch norms folded into the weights; scores are 0 or more.

    Args:
        kind: ``norm``: the kernel's squared L2 norm. ``second_order``: the variance, over images and positions, of the
            kernel's contribution to its output. It is twice the rise of the layer's squared error without the kernel
            (OBD, LeCun et al., 1989, applied to the layer's own error as in L-OBS).
        context: The network, and images for ``second_order``.
        names: Ungrouped convolutions.

    Returns:
        By name, float64 [output channels, input channels].
    """
    layers: dict[str, nn.Module] = {name: context.folded.get_submodule(name) for name in names}
    weights = {name: layer.get_parameter("weight").detach().double().flatten(2) for name, layer in layers.items()}
    if kind == "norm":
        return {name: weight.square().sum(2).cpu().numpy() for name, weight in weights.items()}
    blocks = _input_covariances(context, names)
    return {
        name: torch.einsum("oik,ikl,oil->oi", weight, blocks[name], weight).clamp_min(0.0).cpu().numpy()
        for name, weight in weights.items()
    }


def _input_covariances(context: ScoringContext, names: Collection[str]) -> dict[str, Tensor]:
    """For each layer the covariance of each input channel's patches, float64 [input channels, kernel, kernel]."""
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def see(name: str, module: nn.Module, inputs: Tensor, _output: Tensor) -> None:
        each = patches(module, inputs[:1]).numel()
        for some in inputs.split(max(1, AT_ONCE // each)):
            channels = some.shape[1]
            rows = patches(module, some).unflatten(2, (channels, -1)).squeeze(1)
            # [channels, kernel, images * positions]
            rows = rows.permute(1, 2, 0, 3).flatten(2).double()
            count, total, products = sums.get(name, (0, torch.zeros(()), torch.zeros(())))
            sums[name] = (
                count + rows.shape[2],
                total + rows.sum(2),
                products + rows @ rows.mT,
            )

    watch(context.folded, names, context.batches(), see)
    covariances = {}
    for name, (count, total, products) in sums.items():
        mean = total / count
        covariances[name] = products / count - mean.unsqueeze(2) * mean.unsqueeze(1)
    return covariances
