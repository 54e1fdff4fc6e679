"""Consumer error: scores channels by the error in their consumers' outputs when the channels are removed.

After ThiNet (Luo et al., ICCV 2017), which removes channels one by one, each time the channel that changes the next
layer's outputs least. Three differences [our choice]: where a batch norm follows, a constant change does not count,
because recalibration removes it; the change of each output is relative to the output's variance, by which a batch norm
divides; and exact second moments of the inputs replace ThiNet's sample of outputs. For the set D of removed channels,
the relative squared error of all consumers is the sum of G_cd over c and d in D, where

    G_cd = sum_o w_oc^T C_cd w_od / Var(z_o)

w_oc are the weights of output o for input channel c. C_cd are the second moments of the input patches of channels c and
d, around the mean where a batch norm follows. For a layer with more than 8,192 weights per output, only the terms with
c = d are used. The error ignores later changes of the remaining weights (`repair.name: least_squares`), and layers that
read a channel only beyond an addition or a shortcut to another unit.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.layers import is_depthwise
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.patch_covariance import PatchMoments, patch_moments, patch_spreads, too_large
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores
from prune_env.walk.unit import Member, Unit


@register_criterion("consumer_error", needs="images")
def consumer_error(context: ScoringContext) -> Scores:
    """Each channel's position in the order of removal, from 0; zeros for a unit that no layer reads.

    Raises:
        EvaluationError: If a layer's input is not finite.
    """
    layers = {
        member.module: context.folded.get_submodule(member.module)
        for unit in context.walk.units
        for member in _readers(context, unit)
    }
    normed = {pair.conv for pair in context.fold_pairs}
    large = [name for name, layer in layers.items() if too_large(layer.get_parameter("weight"))]
    moments = patch_moments(context.folded, [name for name in layers if name not in large], context.batches())
    errors = {name: joint_errors(layers[name], moment, name in normed) for name, moment in moments.items()}
    spreads = patch_spreads(context.folded, large, context.batches()) if large else {}
    errors |= {name: lone_errors(layers[name], *spread, name in normed) for name, spread in spreads.items()}
    return {unit.name: removal_order(_of_unit(context, unit, errors)).astype(np.float64) for unit in context.walk.units}


def joint_errors(layer: nn.Module, moments: PatchMoments, normed: bool) -> npt.NDArray[np.float64]:
    """Computes G of one layer over its input channels.

    Args:
        layer: A convolution or linear layer.
        moments: Moments of the layer's input patches.
        normed: Whether a batch norm follows, which removes constant changes.

    Returns:
        float64 [input channels, input channels]; zero between channels of different groups.
    """
    weight = layer.get_parameter("weight").detach().double().flatten(1)
    covariance = moments.curvature(centred=True)
    counted = covariance if normed else moments.curvature(centred=False)
    groups, size, _ = covariance.shape
    area = layer.get_parameter("weight").shape[2:].numel()
    slots = size // area
    errors = torch.zeros(groups * slots, groups * slots, dtype=torch.float64)
    for group, rows in enumerate(weight.chunk(groups)):
        spread = ((rows @ covariance[group]) * rows).sum(1)
        scaled = rows / spread.clamp_min(spread.max() * 1e-9 + 1e-100).sqrt().unsqueeze(1)
        products: Tensor = (scaled.T @ scaled) * counted[group]
        place = slice(group * slots, (group + 1) * slots)
        errors[place, place] = products.reshape(slots, area, slots, area).sum((1, 3))
    values: npt.NDArray[np.float64] = errors.numpy()
    return values


def lone_errors(layer: nn.Module, mean: Tensor, variance: Tensor, normed: bool) -> npt.NDArray[np.float64]:
    """Computes the diagonal of G for a layer that is too large for G; treats all inputs as uncorrelated.

    Args:
        layer: A convolution or linear layer.
        mean: Mean input patch, float64 [groups, d].
        variance: Variance of the input patches, float64 [groups, d].
        normed: Whether a batch norm follows, which removes constant changes.

    Returns:
        float64 [input channels].
    """
    weight = layer.get_parameter("weight").detach().double().flatten(1)
    area = layer.get_parameter("weight").shape[2:].numel()
    counted = variance if normed else variance + mean.square()
    errors = []
    for group, rows in enumerate(weight.square().chunk(len(mean))):
        spread = rows @ variance[group]
        shares = (rows / spread.clamp_min(spread.max() * 1e-9 + 1e-100).unsqueeze(1)).sum(0)
        errors.append((shares * counted[group]).reshape(-1, area).sum(1))
    values: npt.NDArray[np.float64] = torch.cat(errors).cpu().numpy()
    return values


def removal_order(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns each channel's position in a greedy order of removal: each removal adds the least error.

    Args:
        errors: G, symmetric [channels, channels].
    """
    places = np.zeros(len(errors), dtype=np.int64)
    if not errors.any():
        return places
    added = np.diag(errors).copy()
    for place in range(len(errors)):
        channel = int(added.argmin())
        places[channel] = place
        added += 2.0 * errors[:, channel]
        added[channel] = np.inf
    return places


def _readers(context: ScoringContext, unit: Unit) -> list[Member]:
    """Returns the readers of a unit except depthwise layers, whose own readers are listed instead."""
    layers = dict(context.walk.model.named_modules())
    return [member for member in context.readers(unit) if not is_depthwise(layers[member.module])]


def _of_unit(
    context: ScoringContext, unit: Unit, errors: dict[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """Sums G of all consumers over the unit's channels."""
    total = np.zeros((unit.channels, unit.channels))
    for member in _readers(context, unit):
        count, places = member.index.shape[1], member.index.ravel()
        error = errors[member.module]
        if error.ndim == 1:
            total += np.diag(error[places].reshape(unit.channels, count).sum(1))
        else:
            among = error[np.ix_(places, places)]
            total += among.reshape(unit.channels, count, unit.channels, count).sum((1, 3))
    return total
