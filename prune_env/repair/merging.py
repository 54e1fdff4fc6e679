"""Merging: what read a dropped channel reads the kept one that is most like it instead.

Where dropped and kept channels are copies, this is exact; it is the less so the less they are alike. It goes with
filter clusters, but is not in their paper [our choice]. The outgoing weights are added up: W[:, kept] += W[:, dropped].
"""

import copy
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.layers import Convolution, channels_of, is_depthwise
from prune_env.criteria.context import ScoringContext
from prune_env.models.shortcut import ZeroPadShortcut
from prune_env.surgery import Sides
from prune_env.surgery.channels import sliced_tensors
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Unit

StandIns = Callable[[str, IntArray], IntArray]
"""For a unit's name and the channels that stay: int64 [channels], the kept channel in place of each; its own for one
that is kept, or that nothing stands for."""


class Merging:
    """A `Repair` that merges the channels that a layer no longer reads into those that it does.

    Convolutions, linear layers and zero-padding shortcuts are merged. A depthwise convolution has nothing to add up:
    its own filters must be alike too, and its outputs are merged where they are read. A grouped convolution is merged
    where both channels are read by the same group.

    Args:
        walk: The dense network and its units.
        stand_ins: What stands for what; asked anew for each reader of a cut unit.
    """

    def __init__(self, walk: LayerWalk, stand_ins: StandIns) -> None:
        self._stand_ins = stand_ins
        self._modules = dict(walk.model.named_modules())
        self._read: dict[str, list[tuple[str, IntArray]]] = defaultdict(list)
        for unit in walk.free:
            for member in unit.members:
                if member.side == "in":
                    self._read[member.module].append((unit.name, member.index))

    def tensors(self, name: str, sides: Sides) -> dict[str, Tensor]:
        """The tensors that a cut layer gets instead of the sliced ones; see `Repair`."""
        module = self._modules[name]
        if "in" not in sides or name not in self._read or is_depthwise(module):
            return {}
        inputs = self._inputs(name, channels_of(module, "in"), sides["in"])
        if isinstance(module, ZeroPadShortcut):
            # The surgery renumbers what the shortcut reads after this. Zero channels read one place past the inputs.
            source = torch.as_tensor(np.append(inputs, len(inputs)), device=module.source.device)
            return {"source": source[module.source]}
        if not isinstance(module, (*Convolution, nn.Linear)):
            return {}
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        merged = copy.copy(module)
        weight = merged_inputs(module.weight.detach(), inputs, groups)
        merged._parameters = {**module._parameters, "weight": nn.Parameter(weight, requires_grad=False)}
        return {"weight": sliced_tensors(merged, sides)["weight"]}

    def _inputs(self, name: str, size: int, kept: IntArray) -> IntArray:
        """For each input channel of a layer [size], the one that stands for it."""
        stays = np.isin(np.arange(size), kept)
        inputs = np.arange(size)
        for unit, index in self._read[name]:
            staying = np.flatnonzero(stays[index[:, 0]])
            if len(staying) < len(index):
                inputs[index] = index[self._stand_ins(unit, staying)]
        return inputs


def similar_filters(context: ScoringContext) -> StandIns:
    """Stand-ins by folded filters and biases [our choice].

    For a channel that is cut, the kept one stands whose weights and bias, of all that writes the unit, are nearest,
    numbers of batch norms that could not be folded among them; none where all are farther than zero is, since then
    nothing comes nearer to the channel than its absence.
    """
    distances, lengths = {}, {}
    for unit in context.walk.free:
        rows = []
        for producer in context.producers(unit):
            layer = context.folded.get_submodule(producer.module)
            bias = layer._parameters["bias"]
            places = torch.as_tensor(producer.index, device=layer.get_parameter("weight").device)
            rows.append(layer.get_parameter("weight").detach()[places].flatten(1))
            if bias is not None:
                rows.append(bias.detach()[places])
        rows += _beside(context, unit)
        filters = torch.cat(rows, dim=1).double().cpu().numpy()
        distances[unit.name], lengths[unit.name] = cdist(filters, filters), np.linalg.norm(filters, axis=1)

    def stand_ins(name: str, kept: IntArray) -> IntArray:
        among = distances[name][:, kept]
        own = np.arange(len(among))
        near = (among.min(axis=1) < lengths[name]) & ~np.isin(own, kept)
        return np.where(near, kept[among.argmin(axis=1)], own)

    return stand_ins


def _beside(context: ScoringContext, unit: Unit) -> list[Tensor]:
    """Numbers by channel of what the unit runs through beside convolutions: unfolded batch norms, PReLUs."""
    found = []
    for member in unit.members:
        module = context.folded.get_submodule(member.module)
        if member.side == "in" or isinstance(module, (*Convolution, nn.Linear)):
            continue
        own = [*module._parameters.values(), *module._buffers.values()]
        numbers = [
            tensor.detach() for tensor in own if tensor is not None and tensor.shape == (channels_of(module, "out"),)
        ]
        found += [tensor[torch.as_tensor(member.index, device=tensor.device)] for tensor in numbers]
    return found


def merged_inputs(weight: Tensor, stand_ins: IntArray, groups: int = 1) -> Tensor:
    """A weight whose input channels are added up where one stands for several.

    Args:
        weight: [outputs, inputs / groups, ...].
        stand_ins: int64 [inputs], the input channel that stands for each; its own number for those that stay.
        groups: Of a grouped convolution; an input of one group cannot stand for one of another, and is left alone.

    Returns:
        The weight in the same shape; inputs that another stands for have zeros.
    """
    slots = weight.shape[1]
    blocks = weight.chunk(groups)
    own = np.arange(len(stand_ins))
    within = np.where(stand_ins // slots == own // slots, stand_ins, own).reshape(groups, slots) % slots
    places = torch.as_tensor(within, device=weight.device)
    return torch.cat(
        [torch.zeros_like(block).index_add_(1, place, block) for block, place in zip(blocks, places, strict=True)]
    )
