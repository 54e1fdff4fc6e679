"""Closed-form MACs and params of a network at given widths, exact to the integer.

MACs are multiply-adds of convolution and linear layers, counted once, for one image. A layer's cost is a product of its
input channels and its output channels. Both are sums of unit widths, so a cost needs only integers and no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Literal

from torch import nn

from prune_env.common.layers import Convolution, channels_of, is_depthwise
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
        positions: Output positions for one image (H*W), summed over all calls in a forward pass.
        kernel: Kernel elements (k*k; 1 for a linear layer).
        inputs: Channels read.
        outputs: Channels written.
        groups: The dense layer's group count. Cutting slots does not change the group count.
        depthwise: Whether each output channel reads exactly its own input channel. The group count is then the width.
        bias: Whether there is a bias vector.
    """

    name: str
    positions: int
    kernel: int
    inputs: Extent
    outputs: Extent
    groups: int
    depthwise: bool
    bias: bool

    def weights(self, widths: Sequence[int]) -> int:
        """Returns the number of elements of the weight tensor at the widths of all units."""
        outputs = self.outputs.at(widths)
        if self.depthwise:
            return self.kernel * outputs
        return self.kernel * self.inputs.at(widths) * outputs // self.groups


@dataclass(frozen=True)
class VectorCost:
    """Params that a per-channel module (batch norm, PReLU) holds for each of its channels."""

    name: str
    per_channel: int
    extent: Extent


@dataclass(frozen=True)
class CostModel:
    """The closed-form cost of a whole network.

    Attributes:
        layers: Convolutions and linear layers that the forward pass calls.
        vectors: Per-channel modules that units run through.
        fixed_params: Elements of every other parameter.
    """

    layers: tuple[LayerCost, ...]
    vectors: tuple[VectorCost, ...]
    fixed_params: int

    def macs(self, widths: Sequence[int], edited: Weights = NO_EDITS) -> int:
        """Returns multiply-adds for one image when unit u keeps ``widths[u]`` channels and some layers are edited."""
        return sum(layer.positions * self._weights(layer, widths, edited) for layer in self.layers)

    def params(self, widths: Sequence[int], edited: Weights = NO_EDITS) -> int:
        """Returns parameters (not buffers) when unit u keeps ``widths[u]`` channels and some layers are edited."""
        weights = sum(self._weights(layer, widths, edited) for layer in self.layers)
        biases = sum(layer.outputs.at(widths) for layer in self.layers if layer.bias)
        vectors = sum(vector.per_channel * vector.extent.at(widths) for vector in self.vectors)
        return self.fixed_params + weights + biases + vectors

    @staticmethod
    def _weights(layer: LayerCost, widths: Sequence[int], edited: Weights) -> int:
        return edited[layer.name] if layer.name in edited else layer.weights(widths)

    def cost(self, metric: Metric, widths: Sequence[int]) -> int:
        """Returns MACs or params at the given widths."""
        return self.macs(widths) if metric == "macs" else self.params(widths)


def build_cost_model(model: nn.Module, units: Sequence[Unit], positions: dict[str, int]) -> CostModel:
    """Builds the closed-form costs of a network.

    Args:
        model: The dense network.
        units: The network's units. A unit's number in this sequence is its number in every ``widths``.
        positions: Output positions for one image, by name of each convolution and linear layer that the forward pass
            calls.

    Returns:
        The cost model, exact for any widths from 1 to each unit's channels.
    """
    occupied: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, unit in enumerate(units):
        for member in unit.members:
            occupied.setdefault((member.module, member.side), []).append((number, member.index.shape[1]))

    def extent(name: str, module: nn.Module, side: str) -> Extent:
        parts = tuple(occupied.get((name, side), ()))
        fixed = channels_of(module, side) - sum(repeat * units[unit].channels for unit, repeat in parts)
        return Extent(fixed, parts)

    layers, vectors, counted = [], [], 0
    for name, module in model.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if isinstance(module, (*Convolution, nn.Linear)) and name in positions:
            kernel = 1 if isinstance(module, nn.Linear) else prod(module.kernel_size)
            groups = 1 if isinstance(module, nn.Linear) else module.groups
            layers.append(
                LayerCost(
                    name,
                    positions[name],
                    kernel,
                    extent(name, module, "in"),
                    extent(name, module, "out"),
                    groups,
                    is_depthwise(module),
                    module.bias is not None,
                )
            )
            counted += own
        elif own and (name, "out") in occupied:
            channels = channels_of(module, "out")
            vectors.append(VectorCost(name, own // channels, extent(name, module, "out")))
            counted += own
    total = sum(parameter.numel() for parameter in model.parameters())
    return CostModel(tuple(layers), tuple(vectors), total - counted)
