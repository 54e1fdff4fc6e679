"""A cost metric as one formula over the widths of the free units, in exact integers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from prune_env.common.arrays import IntArray
from prune_env.walk import LayerWalk
from prune_env.walk.costs import Extent, Metric


@dataclass(frozen=True)
class CostForm:
    """A cost metric as one formula over the widths w of the free units; all numbers are exact integers.

    cost(w) = constant + linear . w + sum over layers of (fixed_in + inputs w)(fixed_out + outputs w)

    The weight of a layer is a set of vectors over its input channels: one for each output channel and position of the
    kernel. The first factor is the cost of one vector, the second the number of vectors.

    Attributes:
        constant: Cost that no free unit changes.
        linear: int64 [units]; depthwise layers, biases, batch norms.
        fixed_in: int64 [layers]; the layer's scale times the input channels per group that no free unit changes.
        inputs: int64 [layers, units]; the layer's scale times the input channels per group for each channel of a unit.
        fixed_out: int64 [layers]; vectors that no free unit changes.
        outputs: int64 [layers, units]; vectors for each channel of a unit.
        names: The layers' names.
        scales: int64 [layers]; the cost of one input channel of one vector.
    """

    constant: int
    linear: IntArray
    fixed_in: IntArray
    inputs: IntArray
    fixed_out: IntArray
    outputs: IntArray
    names: tuple[str, ...]
    scales: IntArray

    def reading(self, reads: Mapping[str, int]) -> "CostForm":
        """Returns the formula with a fixed number of inputs per vector for some layers, whatever the widths.

        Args:
            reads: Input channels per group, by layer name.
        """
        fixed_in, inputs = self.fixed_in.copy(), self.inputs.copy()
        for name, count in reads.items():
            row = self.names.index(name)
            fixed_in[row], inputs[row] = self.scales[row] * count, 0
        return replace(self, fixed_in=fixed_in, inputs=inputs)

    def cost(self, widths: IntArray, vectors: IntArray | None = None) -> int:
        """Returns the cost at the given widths.

        Args:
            widths: int64 [units].
            vectors: int64 [layers]: the number of vectors of layers that keep some of them only, -1 for other layers.
        """
        counts = self.fixed_out + self.outputs @ widths
        if vectors is not None:
            counts = np.where(vectors < 0, counts, vectors)
        return int(self.constant + self.linear @ widths + (self.fixed_in + self.inputs @ widths) @ counts)

    def along(self, start: IntArray, direction: IntArray) -> tuple[int, int, int]:
        """Returns the coefficients (a, b, c) of cost(start + x * direction) = a x^2 + b x + c."""
        in_start, in_step = self.fixed_in + self.inputs @ start, self.inputs @ direction
        out_start, out_step = self.fixed_out + self.outputs @ start, self.outputs @ direction
        square = int(in_step @ out_step)
        slope = int(self.linear @ direction + in_step @ out_start + in_start @ out_step)
        return square, slope, int(self.constant + self.linear @ start + in_start @ out_start)


def over_free_units(walk: LayerWalk, extent: Extent) -> tuple[int, IntArray]:
    """Returns the channels that no free unit changes, and the channels per channel of each free unit, int64 [units]."""
    columns = {number: column for column, number in enumerate(i for i, unit in enumerate(walk.units) if unit.free)}
    fixed, vector = extent.fixed, np.zeros(len(columns), dtype=np.int64)
    for unit, repeat in extent.parts:
        if unit in columns:
            vector[columns[unit]] += repeat
        else:
            fixed += repeat * walk.units[unit].channels
    return fixed, vector


def cost_form(walk: LayerWalk, metric: Metric) -> CostForm:
    """Returns the metric's formula over the free units of a walk."""
    count = len(walk.free)
    model = walk.cost_model
    macs = metric == "macs"
    constant = sum(model.fixed_macs.values()) if macs else model.fixed_params
    linear = np.zeros(count, dtype=np.int64)
    rows: list[tuple[int, IntArray, int, IntArray]] = []
    names, scales = [], []

    for layer in model.layers:
        scale = layer.positions if macs else 0 if layer.shared else 1
        fixed_out, outputs = over_free_units(walk, layer.outputs)
        if layer.depthwise:
            each = scale * layer.kernel
            constant, linear = constant + each * fixed_out, linear + each * outputs
        else:
            # Every group loses the same channels, so the inputs per group are an integer at every width.
            fixed_in, inputs = over_free_units(walk, layer.inputs)
            fixed, varying = scale * fixed_in // layer.groups, scale * inputs // layer.groups
            rows.append((fixed, varying, layer.kernel * fixed_out, layer.kernel * outputs))
            names.append(layer.name)
            scales.append(scale)
        if layer.bias and not macs:
            constant, linear = constant + fixed_out, linear + outputs
    for vector in model.vectors:
        fixed, places = over_free_units(walk, vector.extent)
        each = vector.macs if macs else vector.params
        constant, linear = constant + each * fixed, linear + each * places
    fixed_ins, inputs_rows, fixed_outs, outputs_rows = zip(*rows, strict=True)
    return CostForm(
        constant,
        linear,
        np.array(fixed_ins, dtype=np.int64),
        np.stack(inputs_rows),
        np.array(fixed_outs, dtype=np.int64),
        np.stack(outputs_rows),
        tuple(names),
        np.array(scales, dtype=np.int64),
    )
