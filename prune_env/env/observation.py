"""The observation: the state features of the unit that the next action decides.

The features are AMC's eleven (He et al., ECCV 2018), made scale-free so that a policy can be replayed on another
network, and the evidence of ranks and sensitivity [our choice]. Every feature lies in [-1, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt

from prune_env.budget import Budget
from prune_env.common.layers import Convolution, Transposed, channels_of, is_layer
from prune_env.protection.sensitivity import LayerEvidence
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Unit

FloatArray = npt.NDArray[np.float32]

STATIC = (
    "depth",
    "output_channels",
    "input_channels",
    "height",
    "width",
    "stride",
    "kernel",
    "cost_share",
    "producers",
    "low_rank_share",
    "mean_rank",
    "sensitivity",
)
"""Features that stay the same through an episode. The first eight and the first three of `DYNAMIC` are AMC's."""

DYNAMIC = ("reduced", "rest", "previous_keep", "even_keep")
"""Features that earlier decisions of the episode change."""

FEATURES = STATIC + DYNAMIC
"""All features in order; a policy file records these names."""


@dataclass(frozen=True)
class UnitEvidence:
    """Measurements of the units before the search.

    Attributes:
        ranks: Feature-map evidence by unit name; units without evidence are missing.
        loss_rise: Rise of the loss in nats when the unit alone is cut, by unit name; empty if not measured.
    """

    ranks: Mapping[str, LayerEvidence]
    loss_rise: Mapping[str, float]


class Observer:
    """Builds observations for one walk and budget.

    Args:
        walk: The network's walk.
        budget: The budget; its free units are observed.
        evidence: The measurements of the free units.
        input_size: Height and width of the network's input in pixels.
    """

    def __init__(self, walk: LayerWalk, budget: Budget, evidence: UnitEvidence, input_size: tuple[int, int]) -> None:
        self.budget = budget
        count = len(budget.units)
        shares = np.array([_removable(budget, number) for number in range(count)]) / budget.dense
        self._rest = np.concatenate([np.cumsum(shares[::-1])[::-1][1:], [0.0]]) / max(shares.sum(), 1e-12)
        self.static = np.zeros((count, len(STATIC)), dtype=np.float32)
        rises = _standardised({unit.name: evidence.loss_rise.get(unit.name) for unit in budget.units})
        for number, unit in enumerate(budget.units):
            relative = shares[number] * count
            self.static[number] = (
                number / max(1, count - 1),
                *_shape(walk, unit, input_size),
                relative / (1.0 + relative),
                _log_scale(_producers(walk, unit), 6),
                *_ranks(evidence.ranks.get(unit.name)),
                rises[unit.name],
            )

    def observe(self, number: int, reduced: float, even_keep: float, previous_keep: float) -> FloatArray:
        """The observation of a free unit, float32 [len(FEATURES)].

        Args:
            number: Number of the free unit that the next action decides.
            reduced: The share of the dense cost that the decisions so far have removed.
            even_keep: The keep ratio that spends the rest of the budget evenly.
            previous_keep: The keep ratio of the previous unit; 1 for the first.
        """
        dynamic = (reduced, self._rest[number], previous_keep, even_keep)
        return np.concatenate([self.static[number], np.asarray(dynamic, dtype=np.float32)])


def _removable(budget: Budget, number: int) -> int:
    """The cost that is removed when this unit alone is cut to its least width."""
    widths = budget.channels.copy()
    widths[number] = budget.least[number]
    return budget.dense - budget.cost(widths)


def _shape(walk: LayerWalk, unit: Unit, input_size: tuple[int, int]) -> tuple[float, ...]:
    """Output and input channels, height, width, stride and kernel of the unit's first layer, each in [0, 1]."""
    module = walk.model.get_submodule(unit.layer)
    shape = walk.shapes[unit.layer]
    stride = kernel = 1
    if isinstance(module, (*Convolution, *Transposed)):
        stride, kernel = max(module.stride), max(module.kernel_size)
    return (
        _log_scale(channels_of(module, "out"), 12),
        _log_scale(channels_of(module, "in"), 12),
        min(1.0, shape.height / input_size[0]),
        min(1.0, shape.width / input_size[1]),
        min(1.0, stride / 4),
        min(1.0, kernel / 7),
    )


def _log_scale(number: int, doublings: int) -> float:
    """log2 of a count, scaled so that 1 maps to 0 and 2**doublings or more maps to 1."""
    return min(1.0, log2(max(1, number)) / doublings)


def _producers(walk: LayerWalk, unit: Unit) -> int:
    modules = (walk.model.get_submodule(member.module) for member in unit.members if member.side == "out")
    return sum(map(is_layer, modules))


def _ranks(evidence: LayerEvidence | None) -> tuple[float, float]:
    return (0.0, 0.0) if evidence is None else (evidence.low_rank_share, evidence.mean_rank)


def _standardised(rises: Mapping[str, float | None]) -> dict[str, float]:
    """Loss rises on a log scale, standardised over the units and squashed into (-1, 1); 0 where not measured."""
    known = {name: np.log(max(rise, 1e-4)) for name, rise in rises.items() if rise is not None}
    if not known:
        return dict.fromkeys(rises, 0.0)
    values = np.array(list(known.values()))
    spread = values.std() or 1.0
    return {name: float(np.tanh((known[name] - values.mean()) / spread)) if name in known else 0.0 for name in rises}
