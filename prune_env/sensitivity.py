"""Sensitive layers (system A): feature-map ranks say which layers may not be pruned.

Known from Yang et al. 2023 (10.1007/s10462-023-10566-5): layers with more low-rank feature maps are sensitive, and
only insensitive layers are given to the agent. The thresholds and the place where a map is looked at are our choice:
a layer's map is what the next layer reads, that is, after batch norm, activation, residual addition and pooling, as
HRank (Lin et al., CVPR 2020) reads it.

Mind the polarity: HRank prunes *filters* whose maps have low rank; system A protects *layers* that have many of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import EvaluationError
from prune_env.common.layers import Convolution
from prune_env.common.modes import in_eval_mode
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Unit

SMALLEST_SIDE = 4
"""Maps with fewer pixels a side carry no evidence: almost any such map has full rank."""

BINS = 10
"""Bins of the histogram of normalised ranks, over [0, 1]."""


@dataclass(frozen=True)
class LayerEvidence:
    """What the ranks of one layer's feature maps say.

    Attributes:
        layer: Dotted name of the convolution.
        unit: The unit that it belongs to.
        height: Height of its maps in pixels, as the next layer reads them.
        width: Width of its maps in pixels.
        low_rank_share: phi, the share of its maps whose rank / min(height, width) is below the rank threshold.
        mean_rank: Mean of rank / min(height, width), in [0, 1].
        histogram: How many maps fall into each tenth of [0, 1].
    """

    layer: str
    unit: str
    height: int
    width: int
    low_rank_share: float
    mean_rank: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class SensitivityReport:
    """The evidence for every layer that has any, and what was concluded from it.

    Attributes:
        layers: Evidence in forward order.
        sensitive: For each sensitive unit, the reason in words.
        rank_threshold: A map below it is low-rank.
        layer_threshold: A layer whose share of low-rank maps exceeds it is sensitive.
    """

    layers: tuple[LayerEvidence, ...]
    sensitive: Mapping[str, str]
    rank_threshold: float
    layer_threshold: float

    def as_record(self) -> dict[str, Any]:
        """The report as plain data for a JSON file."""
        return asdict(self)

    def by_unit(self) -> dict[str, LayerEvidence]:
        """The richest evidence of each unit: that of its layer with the largest share of low-rank maps."""
        found: dict[str, LayerEvidence] = {}
        for evidence in self.layers:
            if evidence.unit not in found or evidence.low_rank_share > found[evidence.unit].low_rank_share:
                found[evidence.unit] = evidence
        return found


@dataclass(frozen=True)
class LayerRanks:
    """Normalised ranks of one layer's maps.

    Attributes:
        unit: The unit that the layer belongs to.
        height: Height of the maps in pixels.
        width: Width of the maps in pixels.
        ranks: float64 [C], the mean over images of rank / min(height, width), in [0, 1].
    """

    unit: str
    height: int
    width: int
    ranks: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Reading:
    """Where a layer's maps are read: the consuming module and the channels there."""

    layer: str
    unit: str
    channels: IntArray


def feature_map_ranks(walk: LayerWalk, images: Tensor, batch_size: int = 64) -> dict[str, LayerRanks]:
    """The mean rank of every feature map of every layer.

    The network runs and ranks are taken in float32 whatever the autocast state, because rounding to 16 bits turns a
    rank of 1 into 13 or more. Maps smaller than 4 pixels a side are left out.

    Args:
        walk: The network's walk; the network runs in eval mode.
        images: [N, C, H, W].
        batch_size: Images a forward pass.

    Returns:
        Ranks by layer name, in forward order.
    """
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    readings: dict[str, list[_Reading]] = {}
    for consumer, reading in _readings(walk):
        readings.setdefault(consumer, []).append(reading)

    def read(consumer: str, maps: Tensor) -> None:
        for reading in readings[consumer]:
            if maps.ndim == 4 and min(maps.shape[2:]) >= SMALLEST_SIDE:
                chosen = maps[:, torch.as_tensor(reading.channels, device=maps.device)]
                totals[reading.layer] = totals.get(reading.layer, 0) + _ranks(chosen).sum(dim=0)
                # Not the number of images: a network may call the consumer several times for each.
                counts[reading.layer] = counts.get(reading.layer, 0) + len(chosen)
                sizes[reading.layer] = (int(maps.shape[2]), int(maps.shape[3]))

    _run_reading(walk.model, readings, read, images, batch_size)
    units = {reading.layer: reading.unit for group in readings.values() for reading in group}
    return {
        layer: LayerRanks(
            units[layer], *sizes[layer], totals[layer].double().cpu().numpy() / (counts[layer] * min(sizes[layer]))
        )
        for layer in walk.shapes
        if layer in totals
    }


def find_sensitive_layers(
    ranks: Mapping[str, LayerRanks],
    rank_threshold: float = 0.5,
    layer_threshold: float = 0.5,
    top_share: float | None = None,
) -> SensitivityReport:
    """Concludes from the ranks which units are sensitive.

    Args:
        ranks: Ranks by layer name.
        rank_threshold: A map whose normalised rank is below it is low-rank, in [0, 1].
        layer_threshold: A layer with a larger share of low-rank maps is sensitive, in [0, 1].
        top_share: At most this share of the layers (rounded up to a whole one), those richest in low-rank maps, is
            sensitive; no such limit where it is None.

    Returns:
        The evidence and the sensitive units. A unit is sensitive if any of its layers is.
    """
    layers = tuple(_evidence(layer, found, rank_threshold) for layer, found in ranks.items())
    flagged = [evidence for evidence in layers if evidence.low_rank_share > layer_threshold]
    flagged.sort(key=lambda evidence: -evidence.low_rank_share)
    if top_share is not None:
        flagged = flagged[: ceil(top_share * len(layers) - 1e-9)]
    sensitive: dict[str, str] = {}
    for evidence in flagged:
        sensitive.setdefault(
            evidence.unit,
            f"sensitive: {evidence.low_rank_share:.0%} of the maps of {evidence.layer} are low-rank "
            f"(threshold {layer_threshold:.0%})",
        )
    return SensitivityReport(layers, sensitive, rank_threshold, layer_threshold)


def _evidence(layer: str, found: LayerRanks, rank_threshold: float) -> LayerEvidence:
    counts, _ = np.histogram(found.ranks, bins=BINS, range=(0.0, 1.0))
    return LayerEvidence(
        layer=layer,
        unit=found.unit,
        height=found.height,
        width=found.width,
        low_rank_share=float((found.ranks < rank_threshold).mean()),
        mean_rank=float(found.ranks.mean()),
        histogram=tuple(int(count) for count in counts),
    )


def _ranks(maps: Tensor) -> Tensor:
    """Ranks of maps [N, C, H, W] as int64 [N, C]; a map that is not finite is an error."""
    if not torch.isfinite(maps).all():
        raise EvaluationError("A feature map is not finite; check the network's weights and the data's scaling.")
    ranks: Tensor = torch.linalg.matrix_rank(maps.detach().float())
    return ranks


def _readings(walk: LayerWalk) -> list[tuple[str, _Reading]]:
    """For every convolution that produces channels of a unit, the first later convolution that reads them."""
    order = {name: position for position, name in enumerate(walk.shapes)}
    modules = dict(walk.model.named_modules())
    found: dict[str, tuple[str, _Reading]] = {}
    for unit in walk.units:
        producers = _in_order(unit, "out", modules, order)
        for consumer, index in _in_order(unit, "in", modules, order):
            earlier = [item for item in producers if order[item[0]] < order[consumer]]
            if earlier and earlier[-1][0] not in found and earlier[-1][1].shape == index.shape:
                layer = earlier[-1][0]
                found[layer] = (consumer, _Reading(layer, unit.name, index.ravel()))
    return list(found.values())


def _in_order(
    unit: Unit, side: str, modules: Mapping[str, nn.Module], order: Mapping[str, int]
) -> Sequence[tuple[str, IntArray]]:
    places = [
        (member.module, member.index)
        for member in unit.members
        if member.side == side and member.module in order and isinstance(modules[member.module], Convolution)
    ]
    return sorted(places, key=lambda place: order[place[0]])


def _run_reading(model: nn.Module, consumers: Mapping[str, Any], read: Any, images: Tensor, batch_size: int) -> None:
    """Runs the network in eval mode and float32 and hands what each consumer reads to ``read(consumer, maps)``."""
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: read(name, inputs[0]))
        for name in consumers
    ]
    try:
        with in_eval_mode(model), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for batch in images.split(batch_size):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
