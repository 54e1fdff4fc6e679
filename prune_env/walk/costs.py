"""Closed-form MACs and params of a network at given widths, exact to the integer.

MACs are multiply-adds of convolution and linear layers, counted once, for one image. A layer's cost is a product of its
input channels and its output channels. Both are sums of unit widths, so a cost needs only integers and no network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Literal

from torch import nn

from prune_env.common.layers import channels_of, is_depthwise, is_layer
from prune_env.walk.unit import Unit

Metric = Literal["macs", "params"]
"""The costs that the closed form counts."""
Weights = Mapping[str, int]
"""The number of weight elements of each edited layer, by layer."""
NO_EDITS: Weights = MappingProxyType({})


@dataclass(frozen=True)
class Extent:
    """A number of channels: a fixed part, plus a multiple of the width of each unit that runs through.

    Attributes:
        fixed: Channels that belong to no unit.
        parts: Pairs (unit number, channels per channel of that unit).
    """

    fixed: int
    parts: tuple[tuple[int, int], ...]

    def at(self, widths: Sequence[int]) -> int:
        """Returns the number of channels when unit number u keeps ``widths[u]`` channels."""
        return self.fixed + sum(repeat * widths[unit] for unit, repeat in self.parts)


@dataclass(frozen=True)
class LayerCost:
    """The cost of one convolution or linear layer.

    Attributes:
        name: Dotted name of the module.
        positions: Positions at which the kernel is applied to one image, summed over all calls of a forward pass:
            output positions (H*W), or input positions of a transposed convolution.
        kernel: Kernel elements (k*k; 1 for a linear layer).
        inputs: Channels read.
        outputs: Channels written.
        groups: The dense layer's group count. Cutting slots does not change the group count.
        depthwise: Whether each output channel reads exactly its own input channel. The group count is then the width.
        bias: Whether there is a bias vector of its own.
        shared: Whether the weight is that of an earlier layer, so that its params count there.
    """

    name: str
    positions: int
    kernel: int
    inputs: Extent
    outputs: Extent
    groups: int
    depthwise: bool
    bias: bool
    shared: bool = False

    def weights(self, widths: Sequence[int]) -> int:
        """Returns the number of elements of the weight tensor at the widths of all units."""
        outputs = self.outputs.at(widths)
        if self.depthwise:
            return self.kernel * outputs
        return self.kernel * self.inputs.at(widths) * outputs // self.groups


@dataclass(frozen=True)
class VectorCost:
    """The cost of each channel of a per-channel module (batch norm, PReLU) or of an operation without a layer.

    Attributes:
        name: Dotted name of the module, or the operation and its module.
        extent: The channels.
        params: Parameters for each channel.
        macs: Multiply-adds for each channel.
    """

    name: str
    extent: Extent
    params: int = 0
    macs: int = 0


@dataclass(frozen=True)
class CostModel:
    """The closed-form cost of a whole network.

    Attributes:
        layers: Convolutions and linear layers that the forward pass calls.
        vectors: Per-channel modules that units run through.
        fixed_params: Elements of every other parameter.
        fixed_macs: Multiply-adds of everything else, such as products of maps, by operation and module.
    """

    layers: tuple[LayerCost, ...]
    vectors: tuple[VectorCost, ...]
    fixed_params: int
    fixed_macs: Mapping[str, int] = field(default_factory=dict)

    def macs(self, widths: Sequence[int], edited: Weights = NO_EDITS) -> int:
        """Returns multiply-adds for one image when unit u keeps ``widths[u]`` channels and some layers are edited."""
        fixed = sum(self.fixed_macs.values()) + sum(vector.macs * vector.extent.at(widths) for vector in self.vectors)
        return fixed + sum(layer.positions * self._weights(layer, widths, edited) for layer in self.layers)

    def params(self, widths: Sequence[int], edited: Weights = NO_EDITS) -> int:
        """Returns parameters (not buffers) when unit u keeps ``widths[u]`` channels and some layers are edited."""
        weights = sum(self._weights(layer, widths, edited) for layer in self.layers if not layer.shared)
        biases = sum(layer.outputs.at(widths) for layer in self.layers if layer.bias)
        vectors = sum(vector.params * vector.extent.at(widths) for vector in self.vectors)
        return self.fixed_params + weights + biases + vectors

    @staticmethod
    def _weights(layer: LayerCost, widths: Sequence[int], edited: Weights) -> int:
        return edited[layer.name] if layer.name in edited else layer.weights(widths)

    def cost(self, metric: Metric, widths: Sequence[int]) -> int:
        """Returns MACs or params at the given widths."""
        return self.macs(widths) if metric == "macs" else self.params(widths)


def build_cost_model(
    model: nn.Module,
    units: Sequence[Unit],
    positions: Mapping[str, int],
    counted: Mapping[str, int],
    without_layer: Sequence[VectorCost] = (),
) -> CostModel:
    """Builds the closed-form costs of a network.

    Args:
        model: The dense network.
        units: The network's units. A unit's number in this sequence is its number in every ``widths``.
        positions: Positions at which each called convolution and linear layer applies its kernel, by name.
        counted: Multiply-adds that a count of every operation found, by layer name or by operation. What the closed
            form does not explain becomes a fixed term.
        without_layer: The cost of operations on channels that no layer computes.

    Returns:
        The cost model, exact for any widths from 1 to each unit's channels.
    """
    parts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, unit in enumerate(units):
        for member in unit.members:
            parts.setdefault((member.module, member.side), []).append((number, member.index.shape[1]))

    def extent(name: str, module: nn.Module, side: str) -> Extent:
        own = tuple(parts.get((name, side), ()))
        return Extent(channels_of(module, side) - sum(repeat * units[unit].channels for unit, repeat in own), own)

    layers: list[LayerCost] = []
    vectors: list[VectorCost] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        if is_layer(module) and name in positions and "weight" in module._parameters:
            layers.append(_layer_cost(name, module, positions[name], extent, seen))
            seen |= {id(tensor) for tensor in (module.weight, module.bias) if tensor is not None}
        for side in dict.fromkeys(key for holder, key in parts if holder == name and key != "in"):
            own = _vectors_at(module, side, seen)
            seen |= {id(tensor) for tensor in own}
            if own:
                vectors.append(VectorCost(name, extent(name, module, side), params=len(own)))
    fixed = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in seen)
    widths = [unit.channels for unit in units]
    rest = dict(counted)
    for layer in layers:
        rest[layer.name] = rest.get(layer.name, 0) - layer.positions * layer.weights(widths)
    for vector in without_layer:
        rest[vector.name] = rest.get(vector.name, 0) - vector.macs * vector.extent.at(widths)
    fixed_macs = {name: macs for name, macs in rest.items() if macs}
    return CostModel(tuple(layers), (*vectors, *without_layer), fixed, fixed_macs)


def _layer_cost(
    name: str, module: nn.Module, positions: int, extent: Callable[[str, nn.Module, str], Extent], seen: set[int]
) -> LayerCost:
    linear = isinstance(module, nn.Linear)
    return LayerCost(
        name,
        positions,
        1 if linear else prod(module.kernel_size),  # type: ignore[arg-type]
        extent(name, module, "in"),
        extent(name, module, "out"),
        1 if linear else int(module.groups),  # type: ignore[arg-type]
        is_depthwise(module),
        module.bias is not None and id(module.bias) not in seen,
        id(module.weight) in seen,
    )


def _vectors_at(module: nn.Module, side: str, seen: set[int]) -> list[nn.Parameter]:
    """Returns the parameters with one number a channel at one side of a module, without those seen before."""
    own = [module._parameters.get(side)] if side != "out" else list(module._parameters.values())
    channels = channels_of(module, side)
    return [tensor for tensor in own if tensor is not None and tensor.numel() == channels and id(tensor) not in seen]
