"""Sensitive layers (system A): feature-map ranks say which layers may not be pruned.

Known from Yang et al. 2023 (10.1007/s10462-023-10566-5): layers with more low-rank feature maps are sensitive, and
only insensitive layers are given to the agent. The thresholds and the place where a map is looked at are our choice:
a layer's map is what the next layer reads, that is, after batch norm, activation, residual addition and pooling, as
HRank (Lin et al., CVPR 2020) reads it.

Mind the polarity: HRank prunes *filters* whose maps have low rank; system A protects *layers* that have many of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

from prune_env.protection.feature_ranks import LayerRanks

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
