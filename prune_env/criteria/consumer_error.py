"""Consumer error: what the layers that read a channel would compute otherwise without it.

After ThiNet (Luo et al., ICCV 2017), which removes channel after channel, each time the one that changes the next
layer's outputs least. Ours differs [our choice]: where a batch norm follows, whose statistics are measured anew, a
constant change does not count; each output's change is relative to its variance, by which a batch norm divides; and no
sample of outputs is drawn, since the inputs' moments say it all. With D the channels removed so far, all consumers'
relative squared error is the sum of G_cd over c and d in D, where

    G_cd = sum_o w_oc^T C_cd w_od / Var(z_o)

w_oc are the weights with which output o reads channel c, and C_cd are the second moments of what they are laid on,
around the mean where a batch norm follows; of a layer with more than 8,192 weights an output only those with c = d are
looked at. What is not removed stays as it is: weights fitted anew (`repair.name:
least_squares`) are not looked ahead to, nor what reads a channel beyond an addition or a shortcut to another unit.
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
    """The place in which each channel is removed, from 0; all zeros for a unit that no layer reads.

    Raises:
        EvaluationError: If a layer reads a number that is not finite.
    """
    layers = {
        member.module: context.folded.get_submodule(member.module)
        for unit in context.walk.units
        for member in _readers(context, unit)
    }
    normed = {pair.conv for pair in context.fold_pairs}
    large = [name for name, layer in layers.items() if too_large(layer.get_parameter("weight"))]
    moments = patch_moments(context.folded, [name for name in layers if name not in large], context.batches())
    errors = {name: joint_errors(layers[name], found, name in normed) for name, found in moments.items()}
    spreads = patch_spreads(context.folded, large, context.batches()) if large else {}
    errors |= {name: lone_errors(layers[name], *found, name in normed) for name, found in spreads.items()}
    return {unit.name: removal_order(_of_unit(context, unit, errors)).astype(np.float64) for unit in context.walk.units}


def joint_errors(layer: nn.Module, moments: PatchMoments, normed: bool) -> npt.NDArray[np.float64]:
    """G of one layer over its input channels.

    Args:
        layer: A convolution or linear layer.
        moments: Of its patches.
        normed: Whether a batch norm takes out what is constant.

    Returns:
        float64 [input channels, input channels]; zero between channels of different groups.
    """
    weight = layer.get_parameter("weight").detach().double().flatten(1)
    covariance = moments.curvature(centred=True)
    counted = covariance if normed else moments.curvature(centred=False)
    groups, size, _ = covariance.shape
    area = layer.get_parameter("weight").shape[2:].numel()
    slots = size // area
    found = torch.zeros(groups * slots, groups * slots, dtype=torch.float64)
    for group, rows in enumerate(weight.chunk(groups)):
        spread = ((rows @ covariance[group]) * rows).sum(1)
        scaled = rows / spread.clamp_min(spread.max() * 1e-9 + 1e-100).sqrt().unsqueeze(1)
        products: Tensor = (scaled.T @ scaled) * counted[group]
        place = slice(group * slots, (group + 1) * slots)
        found[place, place] = products.reshape(slots, area, slots, area).sum((1, 3))
    values: npt.NDArray[np.float64] = found.numpy()
    return values


def lone_errors(layer: nn.Module, mean: Tensor, variance: Tensor, normed: bool) -> npt.NDArray[np.float64]:
    """G's diagonal of a layer with too many inputs for G, which are taken to have nothing to do with each other.

    Args:
        layer: A convolution or linear layer.
        mean: Of its patches, float64 [groups, d].
        variance: Of its patches, float64 [groups, d].
        normed: Whether a batch norm takes out what is constant.

    Returns:
        float64 [input channels].
    """
    weight = layer.get_parameter("weight").detach().double().flatten(1)
    area = layer.get_parameter("weight").shape[2:].numel()
    counted = variance if normed else variance + mean.square()
    found = []
    for group, rows in enumerate(weight.square().chunk(len(mean))):
        spread = rows @ variance[group]
        shares = (rows / spread.clamp_min(spread.max() * 1e-9 + 1e-100).unsqueeze(1)).sum(0)
        found.append((shares * counted[group]).reshape(-1, area).sum(1))
    values: npt.NDArray[np.float64] = torch.cat(found).cpu().numpy()
    return values


def removal_order(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The place in which each channel is removed, where each removal adds the least error possible.

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
    """What reads a unit's channels; a depthwise layer hands them on, and what is behind it reads them."""
    layers = dict(context.walk.model.named_modules())
    return [member for member in context.readers(unit) if not is_depthwise(layers[member.module])]


def _of_unit(
    context: ScoringContext, unit: Unit, errors: dict[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """G of all consumers together, over the unit's channels."""
    total = np.zeros((unit.channels, unit.channels))
    for member in _readers(context, unit):
        count, places = member.index.shape[1], member.index.ravel()
        found = errors[member.module]
        if found.ndim == 1:
            total += np.diag(found[places].reshape(unit.channels, count).sum(1))
        else:
            among = found[np.ix_(places, places)]
            total += among.reshape(unit.channels, count, unit.channels, count).sum((1, 3))
    return total
