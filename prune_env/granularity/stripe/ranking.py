"""The stripes of a unit in the order in which they stay, and what any number of them costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_env.common.arrays import IntArray

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerStripes:
    """The stripes of one convolution.

    Attributes:
        layer: The convolution's name.
        strength: The norm of each stripe over its input channels, float64 [filters, kernel positions].
        channels: The unit's channel that each filter writes, int64 [filters].
        whole: Whether the convolution keeps whole filters; then a filter is one stripe, [filters, 1], and stays with
            its channel.
    """

    layer: str
    strength: FloatArray
    channels: IntArray
    whole: bool = False

    def keys(self, filters: FloatArray) -> FloatArray:
        """Returns what is compared with the one threshold of all layers, [filters, kernel positions].

        The threshold of filter n is ``threshold * mean(g) / g[n]`` (DTC, Li et al. 2023), with g the filters' strength.
        So stripe (n, i) stays where ``strength[n, i] * g[n] / mean(g)`` is above the threshold. Strengths are divided
        by the layer's mean first, so that one threshold suits all layers [our choice].

        Args:
            filters: The strength of each filter, 0 or more, float64 [filters].
        """
        relative = self.strength / max(float(self.strength.mean()), 1e-30)
        return np.asarray(relative * (filters / max(float(filters.mean()), 1e-30))[:, None])

    def equal_keys(self) -> FloatArray:
        """Returns keys by which every filter keeps as many stripes, [filters, kernel positions]."""
        order = np.argsort(-self.strength, axis=1, kind="stable")
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.arange(order.shape[1])[None, :], axis=1)
        strongest = max(float(self.strength.max()), 1e-30)
        # Between 0 and 1, in the order of places; of equal places, the stronger stripe comes first.
        return np.asarray(1.0 - (places + 0.5 * (1.0 - self.strength / strongest)) / order.shape[1])


class Ranking:
    """The stripes of all convolutions that write a unit, strongest first.

    Args:
        skeletons: The stripes of all layers that write the unit. Whole filters come last. They keep strong channels
            from being cut, and are not counted.
        keys: For each layer the stripes' keys, float64 [filters, kernel positions]; the largest stay.
        channels: How many channels the unit has.

    Attributes:
        layers: The names of the convolutions that can lose stripes.
        writes: For each convolution the unit's channel that each filter writes, int64 [filters].
        totals: How many stripes each convolution has, by name.
        alive: How many channels the strongest stripes write, by the number of stripes, int64 [stripes + 1].
        keys: All keys in descending order, float64 [stripes].
        total: How many stripes there are, whole filters counted as one each.
    """

    def __init__(self, skeletons: Sequence[LayerStripes], keys: Sequence[FloatArray], channels: int) -> None:
        striped = [skeleton for skeleton in skeletons if not skeleton.whole]
        self.layers = tuple(skeleton.layer for skeleton in striped)
        self.writes = tuple(skeleton.channels for skeleton in striped)
        self._shapes = [skeleton.strength.shape for skeleton in striped]
        self.totals = {skeleton.layer: skeleton.strength.size for skeleton in striped}
        flat = np.concatenate([one.ravel() for one in keys])
        order = np.argsort(-flat, kind="stable")
        self.keys: FloatArray = flat[order]
        self.total = len(flat)
        self._layer: IntArray = np.repeat(np.arange(len(keys)), [one.size for one in keys])[order]
        self._place: IntArray = np.concatenate([np.arange(one.size) for one in keys])[order]
        writes = [np.repeat(skeleton.channels, one.shape[1]) for skeleton, one in zip(skeletons, keys, strict=True)]
        self._channel: IntArray = np.concatenate(writes)[order]
        first = np.full(channels, self.total)
        np.minimum.at(first, self._channel, np.arange(self.total))
        self._channels_in_order: IntArray = np.argsort(first, kind="stable")
        self._firsts: IntArray = first[self._channels_in_order]
        self.alive: IntArray = np.searchsorted(self._firsts, np.arange(self.total + 1))
        self._counts = self._cumulative(self._layer)
        self._first_counts = self._cumulative(self._layer[self._firsts])

    def _cumulative(self, layers: IntArray) -> IntArray:
        """Returns how many of the first entries belong to each layer, int64 [layers, entries + 1]."""
        own = layers[None, :] == np.arange(len(self.layers))[:, None]
        return np.concatenate([np.zeros((len(own), 1), dtype=np.int64), own.cumsum(axis=1)], axis=1)

    def above(self, threshold: float) -> int:
        """Returns how many stripes have a key above the threshold."""
        return int(np.searchsorted(-self.keys, -threshold, side="left"))

    def counts(self, stripes: int, width: int) -> IntArray:
        """Returns how many stripes each convolution keeps, int64 [layers]; arguments as `chosen`."""
        extra = self._first_counts[:, width] - self._first_counts[:, min(width, int(self.alive[stripes]))]
        return np.maximum(self._counts[:, stripes] + extra, 1)

    def chosen(self, stripes: int, width: int) -> tuple[IntArray, list[npt.NDArray[np.bool_]]]:
        """Returns the channels and the stripes that stay.

        Args:
            stripes: How many of the strongest stripes stay.
            width: How many channels stay, at least as many as these stripes write. Each further channel keeps its
                strongest stripe, and so does a convolution that would lose all.

        Returns:
            The channels, ascending, and for each convolution which stripes stay, bool [filters, kernel positions].
        """
        stays = np.zeros(self.total, dtype=np.bool_)
        stays[:stripes] = True
        stays[self._firsts[:width]] = True
        kept = np.sort(self._channels_in_order[:width])
        for layer in range(len(self.layers)):
            own = self._layer == layer
            if not stays[own].any():
                stays[np.flatnonzero(own & np.isin(self._channel, kept))[0]] = True
        masks = []
        for layer, shape in enumerate(self._shapes):
            mask = np.zeros(shape[0] * shape[1], dtype=np.bool_)
            mask[self._place[stays & (self._layer == layer)]] = True
            masks.append(mask.reshape(shape))
        return kept, masks
