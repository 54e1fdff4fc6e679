"""Sensitive layers (system A): the ranks of feature maps decide which layers must not be pruned.

From Yang et al. 2023 (10.1007/s10462-023-10566-5): layers with more low-rank feature maps are sensitive, and the agent
prunes only insensitive layers. The thresholds and the place of measurement are our choice: a layer's map is the input
of the next layer, after batch norm, activation, residual addition and pooling, as in HRank (Lin et al., CVPR 2020).

Mind the polarity: HRank prunes *filters* whose maps have low rank; system A protects *layers* with many low-rank maps.
"""

from collections.abc import Mapping
from math import ceil

import numpy as np
from pydantic import Field

from prune_env.common.ranges import Count, CountFromZero
from prune_env.common.records import Record
from prune_env.protection.feature_ranks import LayerRanks

BINS = 10
"""Bins of the histogram of normalised ranks, over [0, 1]."""


class LayerEvidence(Record):
    """Statistics of the ranks of one layer's feature maps.

    Attributes:
        layer: Dotted name of the convolution.
        unit: The layer's unit.
        height: Height of the maps in pixels, at the input of the next layer.
        width: Width of the maps in pixels.
        low_rank_share: phi, the share of maps whose rank / min(height, width) is below the rank threshold.
        mean_rank: Mean of rank / min(height, width), in [0, 1].
        histogram: Number of maps in each tenth of [0, 1], by normalised rank.
    """

    layer: str
    unit: str
    height: Count
    width: Count
    low_rank_share: float = Field(ge=0, le=1)
    mean_rank: float = Field(ge=0, le=1)
    histogram: tuple[CountFromZero, ...]


class SensitivityReport(Record):
    """The evidence for every measured layer, and the sensitive units that follow: ``sensitivity.json`` of a run.

    Attributes:
        layers: Evidence in forward order.
        sensitive: The reason in words, by sensitive unit.
        rank_threshold: A map with a normalised rank below this is low-rank.
        layer_threshold: A layer with a share of low-rank maps above this is sensitive.
    """

    remedy = "Restore the file from a copy, or remove it; the report then shows no evidence."

    layers: tuple[LayerEvidence, ...]
    sensitive: dict[str, str]
    rank_threshold: float = Field(ge=0, le=1)
    layer_threshold: float = Field(ge=0, le=1)

    def by_unit(self) -> dict[str, LayerEvidence]:
        """For each unit the evidence of its layer with the largest share of low-rank maps."""
        strongest: dict[str, LayerEvidence] = {}
        for evidence in self.layers:
            if evidence.unit not in strongest or evidence.low_rank_share > strongest[evidence.unit].low_rank_share:
                strongest[evidence.unit] = evidence
        return strongest


def find_sensitive_layers(
    ranks: Mapping[str, LayerRanks],
    rank_threshold: float = 0.5,
    layer_threshold: float = 0.5,
    top_share: float | None = None,
) -> SensitivityReport:
    """Finds the sensitive units by the ranks of their layers.

    Args:
        ranks: Ranks by layer name.
        rank_threshold: A map with a normalised rank below this is low-rank, in [0, 1].
        layer_threshold: A layer with a share of low-rank maps above this is sensitive, in [0, 1].
        top_share: At most this share of the layers (rounded up to a whole layer) is sensitive, the layers with the
            largest shares of low-rank maps first; None for no limit.

    Returns:
        The evidence and the sensitive units. A unit is sensitive if any of its layers is.
    """
    layers = tuple(_evidence(layer, measured, rank_threshold) for layer, measured in ranks.items())
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
    return SensitivityReport(
        layers=layers, sensitive=sensitive, rank_threshold=rank_threshold, layer_threshold=layer_threshold
    )


def _evidence(layer: str, measured: LayerRanks, rank_threshold: float) -> LayerEvidence:
    counts, _ = np.histogram(measured.ranks, bins=BINS, range=(0.0, 1.0))
    return LayerEvidence(
        layer=layer,
        unit=measured.unit,
        height=measured.height,
        width=measured.width,
        low_rank_share=float((measured.ranks < rank_threshold).mean()),
        mean_rank=float(measured.ranks.mean()),
        histogram=tuple(int(count) for count in counts),
    )
