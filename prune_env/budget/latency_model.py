"""A network's latency as a formula of its widths, fitted once to timings of its layers at many widths.

The latency of each convolution or linear layer is bilinear in its input and output channels. The latency of everything
else is linear in the number of output values of these layers [our choice; AMC looks layers up in a table]. The formula
has the shape of a `CostForm`, so plans meet a latency budget by the formula as exactly as a MACs budget. The real
latency of the pruned network is measured at the end.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from prune_env.budget.cost_form import CostForm, over_free_units
from prune_env.common.arrays import IntArray
from prune_env.common.errors import RunError
from prune_env.common.hooks import watching
from prune_env.common.modes import in_eval_mode
from prune_env.common.records import Record
from prune_env.common.text import shorten
from prune_env.common.timing import now
from prune_env.walk import LayerWalk

NETWORKS = 16
"""Networks that the formula is fitted to: the dense network, the narrowest, and others of random widths."""

HELD_OUT = 4
"""Networks of random widths that measure the error of the formula."""

WARMUP, ROUNDS = 2, 7

FEMTOSECONDS = 1e15

MOST_SECONDS = 3600.0
"""Most seconds of a batch [our choice]; 64 bits hold two and a half times as many femtoseconds."""


Seconds = Annotated[float, Field(ge=0)]


class LayerLatency(Record):
    """Seconds of a layer with i input and o output channels: constant + inputs i + outputs o + products i o."""

    constant: Seconds
    inputs: Seconds
    outputs: Seconds
    products: Seconds

    def seconds(self, inputs: float, outputs: float) -> float:
        """Returns the layer's seconds with these numbers of input and output channels."""
        return self.constant + self.inputs * inputs + self.outputs * outputs + self.products * inputs * outputs


class LatencyModel(Record):
    """Seconds of one forward pass on one batch, as a formula of the widths; ``latency.json`` of a run.

    Attributes:
        layers: The formula of each convolution and linear layer, by name.
        constant: Seconds that no width changes, besides the layers' constants.
        values: Seconds per output value of these layers for one image: norms, activations, sums.
        batch: Images in the batch.
        threads: Threads of torch.
        error: Median relative error of the formula on networks that it was not fitted to.
    """

    layers: dict[str, LayerLatency]
    constant: Seconds
    values: Seconds
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    error: float = Field(ge=0)

    def refuse_unfit(self, walk: LayerWalk) -> None:
        """Refuses a formula of another network's layers, or one whose seconds do not fit into whole femtoseconds.

        Raises:
            RunError: Names the first layer that is missing or too many, or the seconds.
        """
        wanted = {layer.name for layer in walk.cost_model.layers}
        for name in sorted(wanted ^ self.layers.keys()):
            what = "lacks" if name in wanted else "has"
            whose = "" if name in wanted else ", which the network does not have"
            raise RunError(
                f"The run's latency formula (latency.json) {what} the layer {shorten(repr(name))}{whose}. {self.remedy}"
            )
        # Seconds only rise with widths, so the dense network needs the most.
        if (dense := self.seconds(walk, walk.width_list())) > MOST_SECONDS:
            raise RunError(
                f"The run's latency formula (latency.json) gives {dense:.3g} s for a batch of the dense network; "
                f"allowed are {MOST_SECONDS:g} s or less. {self.remedy}"
            )

    def seconds(self, walk: LayerWalk, widths: Sequence[int]) -> float:
        """Returns the latency in seconds at the widths of all units of the walk, protected units included."""
        total = self.constant + self.values * _values(walk, widths)
        for layer in walk.cost_model.layers:
            total += self.layers[layer.name].seconds(layer.inputs.at(widths), layer.outputs.at(widths))
        return total

    def cost_form(self, walk: LayerWalk) -> CostForm:
        """Returns the formula over the walk's free units, in whole femtoseconds; every channel costs 1 or more."""
        constant, linear = self.constant, np.zeros(len(walk.free))
        rows: list[tuple[float, npt.NDArray[np.floating[Any]], int, IntArray]] = []
        scales = []

        for layer in walk.cost_model.layers:
            latency = self.layers[layer.name]
            fixed_in, inputs = over_free_units(walk, layer.inputs)
            fixed_out, outputs = over_free_units(walk, layer.outputs)
            by_output = latency.outputs + self.values * layer.positions
            constant += latency.constant + latency.inputs * fixed_in + by_output * fixed_out
            linear += latency.inputs * inputs + by_output * outputs
            rows.append((latency.products * fixed_in, latency.products * inputs, fixed_out, outputs))
            scales.append(latency.products)
        fixed_ins, inputs_rows, fixed_outs, outputs_rows = zip(*rows, strict=True)
        return CostForm(
            _whole(constant),
            np.rint(linear * FEMTOSECONDS).astype(np.int64) + 1,
            np.rint(np.array(fixed_ins) * FEMTOSECONDS).astype(np.int64),
            np.rint(np.stack(inputs_rows) * FEMTOSECONDS).astype(np.int64),
            np.array(fixed_outs, dtype=np.int64),
            np.stack(outputs_rows),
            tuple(layer.name for layer in walk.cost_model.layers),
            np.rint(np.array(scales) * FEMTOSECONDS).astype(np.int64),
        )


def fit_latency(walk: LayerWalk, images: Tensor, min_keep: float, seed: int) -> LatencyModel:
    """Times a network's layers at many widths and fits the formula.

    Args:
        walk: The network's walk.
        images: The batch to time [N, C, H, W], on the network's device and in its layout.
        min_keep: Least keep ratio of a unit, in (0, 1].
        seed: Seed of the random widths.
    """
    generator = np.random.default_rng(seed)
    least, dense = (
        [max(1, round(k * unit.channels)) if unit.free else unit.channels for unit in walk.units]
        for k in (min_keep, 1.0)
    )
    drawn = [
        [
            max(1, round(generator.uniform(min_keep, 1.0) * unit.channels)) if unit.free else unit.channels
            for unit in walk.units
        ]
        for _ in range(NETWORKS - 2 + HELD_OUT)
    ]
    widths = [dense, least, *drawn]
    timed = _time_layers([_cut(walk, row, images) for row in widths], images)
    fitted, held = slice(0, NETWORKS), range(NETWORKS, NETWORKS + HELD_OUT)
    layers, rest = {}, np.array([total for total, _ in timed])
    for layer in walk.cost_model.layers:
        seconds = np.array([by_layer[layer.name] for _, by_layer in timed])
        rest -= seconds
        reads, writes = (
            np.array([extent.at(row) for row in widths], float) for extent in (layer.inputs, layer.outputs)
        )
        terms = [np.ones(len(widths)), reads, writes, reads * writes]
        if layer.depthwise:  # inputs and outputs are the same channels
            terms[1] = terms[3] = np.zeros(len(widths))
        fit = _fit(np.stack(terms, axis=1)[fitted], seconds[fitted])
        layers[layer.name] = LayerLatency(**dict(zip(LayerLatency.model_fields, fit, strict=True)))
    others = np.array([[1.0, _values(walk, row)] for row in widths])
    constant, values = _fit(others[fitted], rest[fitted])
    model = LatencyModel(
        layers=layers,
        constant=constant,
        values=values,
        batch=len(images),
        threads=torch.get_num_threads(),
        error=0.0,
    )
    off = [abs(model.seconds(walk, widths[number]) / timed[number][0] - 1.0) for number in held]
    return model.model_copy(update={"error": float(np.median(off))})


def _cut(walk: LayerWalk, widths: Sequence[int], images: Tensor) -> nn.Module:
    names = {unit.name: width for unit, width in zip(walk.units, widths, strict=True) if unit.free}
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and images.dim() == 4
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return walk.plan(names).apply(walk.model).to(images.device).to(memory_format=layout)


def _time_layers(models: Sequence[nn.Module], images: Tensor) -> list[tuple[float, dict[str, float]]]:
    """Returns for each network the seconds of its fastest forward pass, and the least seconds of each layer."""
    totals: list[list[float]] = [[] for _ in models]
    layers: list[dict[str, list[float]]] = [defaultdict(list) for _ in models]
    with in_eval_mode(*models), torch.inference_mode():
        for turn in range(WARMUP + ROUNDS):
            for number, model in enumerate(models):
                by_layer: dict[str, float] = defaultdict(float)
                total = _timed_pass(model, images, by_layer)
                if turn >= WARMUP:
                    totals[number].append(total)
                    for name, seconds in by_layer.items():
                        layers[number][name].append(seconds)
    return [
        (min(total), {name: min(times) for name, times in by_layer.items()})
        for total, by_layer in zip(totals, layers, strict=True)
    ]


def _timed_pass(model: nn.Module, images: Tensor, by_layer: dict[str, float]) -> float:
    started: dict[str, float] = {}

    def before(name: str, _module: nn.Module, _inputs: Any) -> None:
        started[name] = now(images.device)

    def after(name: str, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        by_layer[name] += now(images.device) - started[name]

    layers = (nn.Linear, nn.modules.conv._ConvNd)
    names = [name for name, module in model.named_modules() if isinstance(module, layers)]
    with watching(model, names, before, after):
        begun = now(images.device)
        model(images)
        return now(images.device) - begun


def _fit(terms: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> list[float]:
    """Returns coefficients >= 0 by least squares of relative errors."""
    from scipy.optimize import nnls  # here, because the import takes time

    scale = np.maximum(terms.max(axis=0), 1e-300)
    weights = 1.0 / np.maximum(seconds, 1e-9)
    coefficients, _ = nnls(terms / scale * weights[:, None], seconds * weights)
    return [float(value) for value in coefficients / scale]


def _values(walk: LayerWalk, widths: Sequence[int]) -> float:
    """Returns the number of output values of convolutions and linear layers for one image."""
    return float(sum(layer.positions * layer.outputs.at(widths) for layer in walk.cost_model.layers))


def _whole(seconds: float) -> int:
    return round(seconds * FEMTOSECONDS)
