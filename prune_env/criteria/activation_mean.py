"""Activation mean: scores a channel by the mean magnitude of its values at the next layers' inputs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from prune_env.criteria.context import ScoringContext
from prune_env.criteria.patch_covariance import watch
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores


@register_criterion("activation_mean", needs="images")
def activation_mean(context: ScoringContext) -> Scores:
    """The mean |x| over images and positions of a channel x at the inputs of convolutions and linear layers.

    The inputs come after batch norm, activation, residual addition and pooling. After a ReLU, the score is Molchanov et
    al.'s mean activation (ICLR 2017). The absolute value, which a ReLU does not need, and the mean over several readers
    are our choice. Channels of a unit that no layer reads score 0.
    """
    readers = {unit.name: context.readers(unit) for unit in context.walk.units}
    means = _means(context, list(dict.fromkeys(member.module for group in readers.values() for member in group)))
    return {
        unit.name: sum(
            (means[member.module][member.index].mean(axis=1) for member in readers[unit.name]), np.zeros(unit.channels)
        )
        / max(1, len(readers[unit.name]))
        for unit in context.walk.units
    }


def _means(context: ScoringContext, layers: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Returns for each layer the mean |x| of its input channels, float64 [input channels]."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}

    def see(name: str, layer: nn.Module, inputs: Tensor, _output: Tensor) -> None:
        rows = inputs.abs().movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        sums[name] = sums.get(name, 0.0) + rows.sum(dim=1).double().cpu().numpy()
        counts[name] = counts.get(name, 0) + rows.shape[1]

    watch(context.folded, layers, context.batches(), see)
    return {layer: sums[layer] / counts[layer] for layer in layers}
