"""Feature-map ranks: the mean rank of each map at the input of the next layer (HRank, Lin et al., CVPR 2020)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import EvaluationError
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution
from prune_env.common.modes import in_eval_mode
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Unit

SMALLEST_SIDE = 4
"""Maps with a smaller side, in pixels, are skipped as evidence: almost all of them have full rank."""

PARTS = 4
"""Parts of a batch for each thread, so that no thread waits long for another [our choice]."""


@dataclass(frozen=True)
class LayerRanks:
    """Normalised ranks of one layer's feature maps.

    Attributes:
        unit: The layer's unit.
        height: Height of the maps in pixels; of the largest where they differ.
        width: Width of the maps in pixels; of the largest where they differ.
        ranks: Mean over images of rank / min(height, width), float64 [C], in [0, 1].
    """

    unit: str
    height: int
    width: int
    ranks: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Reading:
    """A layer whose maps a consumer reads: its name, its unit, and its channels in the consumer's input."""

    layer: str
    unit: str
    channels: IntArray


def feature_map_ranks(walk: LayerWalk, images: Tensor, batch_size: int = 64) -> dict[str, LayerRanks]:
    """Measures the mean rank of every feature map of every layer.

    The network and the ranks are computed in float32, regardless of the autocast state, because rounding to 16 bits
    turns a rank of 1 into 13 or more. Maps with a side below 4 pixels are left out.

    Args:
        walk: The network's walk; the network runs in eval mode.
        images: [N, C, H, W].
        batch_size: Images per forward pass.

    Returns:
        Ranks by layer name, in forward order.
    """
    # By layer and smaller side of the map: one convolution may run on maps of several sizes, as in a pyramid's head.
    totals: dict[str, dict[int, Tensor]] = {}
    counts: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    readings: dict[str, list[_Reading]] = {}
    for consumer, reading in _readings(walk):
        readings.setdefault(consumer, []).append(reading)

    def read(consumer: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0]
        for reading in readings[consumer]:
            if maps.ndim == 4 and min(maps.shape[2:]) >= SMALLEST_SIDE:
                chosen = maps[:, torch.as_tensor(reading.channels, device=maps.device)]
                size = (int(maps.shape[2]), int(maps.shape[3]))
                by_side = totals.setdefault(reading.layer, {})
                by_side[min(size)] = by_side.get(min(size), 0) + _ranks(chosen).sum(dim=0)
                # Count calls, not images: a network may call the consumer several times per image.
                counts[reading.layer] = counts.get(reading.layer, 0) + len(chosen)
                sizes[reading.layer] = max(sizes.get(reading.layer, size), size)

    precise = torch.autocast(images.device.type, enabled=False)
    with in_eval_mode(walk.model), watching(walk.model, readings, before=read), torch.no_grad(), precise:
        for batch in images.split(batch_size):
            walk.model(batch)
    units = {reading.layer: reading.unit for group in readings.values() for reading in group}
    return {
        layer: LayerRanks(
            units[layer],
            *sizes[layer],
            np.sum([t.double().cpu().numpy() / (counts[layer] * side) for side, t in totals[layer].items()], axis=0),
        )
        for layer in walk.shapes
        if layer in totals
    }


def _ranks(maps: Tensor) -> Tensor:
    """Ranks of maps [N, C, H, W] as int64 [N, C]; refuses maps that are not finite."""
    if not torch.isfinite(maps).all():
        raise EvaluationError("A feature map is not finite; check the network's weights and the data's scaling.")
    matrices, threads = maps.detach().float(), torch.get_num_threads()
    if threads == 1 or matrices.device.type != "cpu":
        return torch.linalg.matrix_rank(matrices)  # type: ignore[no-any-return]
    # LAPACK takes one small matrix after the other, and gains nothing by several threads for each of them.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(torch.linalg.matrix_rank, matrices.chunk(PARTS * threads))))
    finally:
        torch.set_num_threads(threads)


def _readings(walk: LayerWalk) -> list[tuple[str, _Reading]]:
    """For each convolution that writes a unit, the first later convolution that reads the unit, with the channels."""
    order = {name: position for position, name in enumerate(walk.shapes)}
    modules = dict(walk.model.named_modules())
    readings: dict[str, tuple[str, _Reading]] = {}
    for unit in walk.units:
        producers = _in_order(unit, "out", modules, order)
        for consumer, index in _in_order(unit, "in", modules, order):
            earlier = [item for item in producers if order[item[0]] < order[consumer]]
            if earlier and earlier[-1][0] not in readings and earlier[-1][1].shape == index.shape:
                layer = earlier[-1][0]
                readings[layer] = (consumer, _Reading(layer, unit.name, index.ravel()))
    return list(readings.values())


def _in_order(
    unit: Unit, side: str, modules: Mapping[str, nn.Module], order: Mapping[str, int]
) -> Sequence[tuple[str, IntArray]]:
    places = [
        (member.module, member.index)
        for member in unit.members
        if member.side == side and member.module in order and isinstance(modules[member.module], Convolution)
    ]
    return sorted(places, key=lambda place: order[place[0]])
