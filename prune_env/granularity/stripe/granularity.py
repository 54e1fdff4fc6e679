"""Granularity stripe: for each filter the positions of its kernel that stay (system C; PFF, Meng et al., NeurIPS 2020).

An action is the share of a unit's stripes that stays. The stripes are shared out among the unit's filters by a
threshold for each filter (DTC; Li et al., AI Communications 2023) or equally. A filter without stripes goes whole.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.common.errors import UserError
from prune_env.common.layers import Transposed
from prune_env.common.ranges import Count
from prune_env.granularity.base import (
    Granularity,
    GranularityContext,
    GranularityMeasurements,
    Series,
    TextTable,
    register_granularity,
)
from prune_env.granularity.recorded import counts_in
from prune_env.granularity.stripe.builder import StripePlanBuilder
from prune_env.granularity.stripe.edit import stripes_of, why_not_striped
from prune_env.granularity.stripe.ranking import FloatArray, LayerStripes, Ranking
from prune_env.granularity.stripe.settings import StripeSettings
from prune_env.plan import PruningPlan
from prune_env.walk import LayerWalk
from prune_env.walk.unit import Member, Unit


class StripeMeasurements(GranularityMeasurements):
    """The file ``stripes.json`` of a run.

    Attributes:
        stripes: How many stripes each convolution has.
        whole: Why other layers keep whole filters.
    """

    file = "stripes.json"

    stripes: dict[str, Count]
    whole: dict[str, str] = Field(default_factory=dict)


@register_granularity
class Stripe(Granularity):
    """Stripes of filters: all weights of a filter at one position of its kernel.

    Attributes:
        rankings: The stripes of each free unit, strongest first; None for a unit that no convolution with stripes
            writes.
        whole: Why other layers keep whole filters, by layer.
        totals: How many stripes each convolution has, by layer.
    """

    name = "stripe"
    Settings = StripeSettings
    supports_latency = False
    makes_edits = True
    beyond_channels = True
    Measurements = StripeMeasurements
    settings: StripeSettings
    rankings: tuple[Ranking | None, ...]
    whole: Mapping[str, str]
    totals: Mapping[str, int]

    def prepare(self, context: GranularityContext) -> Self:
        """Finds the convolutions with stripes, and ranks the stripes of each unit."""
        walk = context.scoring.walk
        self._walk, self._scores, self._min_keep = walk, context.scores, context.min_keep
        self.whole = layers_without_stripes(walk, context.untouched)
        weights = context.scoring.weights
        rankings: list[Ranking | None] = []
        for unit in walk.free:
            skeletons = [self._stripes_of(member, weights) for member in context.scoring.producers(unit)]
            skeletons.sort(key=lambda skeleton: skeleton.whole)
            keys = [self._keys(skeleton, unit.name) for skeleton in skeletons]
            striped = any(not skeleton.whole for skeleton in skeletons)
            rankings.append(Ranking(skeletons, keys, unit.channels) if striped else None)
        self.rankings = tuple(rankings)
        self.totals = {
            name: count for ranking in rankings if ranking is not None for name, count in ranking.totals.items()
        }
        return self

    def _stripes_of(self, member: Member, weights: Mapping[str, Tensor]) -> LayerStripes:
        weight = weights[member.module]
        if member.module not in self.whole:
            return LayerStripes(member.module, _norms(weight), _channels_written(member))
        norms = filter_norms(self._walk.model.get_submodule(member.module), weight)[member.index.ravel()]
        channels = np.repeat(np.arange(len(member.index)), member.index.shape[1])
        return LayerStripes(member.module, norms[:, None], channels, whole=True)

    def _keys(self, skeleton: LayerStripes, unit: str) -> FloatArray:
        if self.settings.sharing == "equal":
            return skeleton.equal_keys()
        if self.settings.strength == "skeleton":
            return skeleton.keys(skeleton.strength.sum(axis=1))
        scores = self._scores.get(unit)
        if scores is None or scores.min() < 0:
            raise UserError(
                "granularity.strength: criterion given, but criterion.name gives scores below 0, which are no "
                "strengths. Give skeleton, or a criterion of norms, for example texture."
            )
        return skeleton.keys(scores[skeleton.channels])

    def builder(self, budget: Budget) -> StripePlanBuilder:
        """A new plan builder for a budget."""
        return StripePlanBuilder(budget, self.rankings, self._scores, self._min_keep)

    def reachable(self, budget: Budget) -> tuple[float, float]:
        """The smallest and the largest share of the dense cost that a plan can reach.

        Raises:
            BudgetError: If the budget is below the smallest.
        """
        smallest = self.builder(budget).smallest
        budget.refuse_below("every free unit at its least width, with one stripe for each of its channels", *smallest)
        return budget.cost(*smallest) / budget.dense, 1.0

    def limits(self) -> Mapping[str, float]:
        """The setting that scales actions, by key."""
        return {"env.min_keep": self._min_keep}

    def shares_above(self, threshold: float) -> FloatArray:
        """The share of each free unit's stripes above one threshold, [units]; of channels where there are no stripes.

        The channels of a unit without stripes are compared by the squares of their weights' L1 norm, relative to the
        unit's mean: a filter of one stripe is as strong as its stripe.
        """
        shares = []
        for unit, ranking in zip(self._walk.free, self.rankings, strict=True):
            if ranking is not None:
                shares.append(ranking.above(threshold) / ranking.total)
            else:
                norms = self._walk.magnitudes(unit)
                shares.append(float(np.mean((norms / max(norms.mean(), 1e-30)) ** 2 > threshold)))
        return np.array(shares)

    def record(self, plan: PruningPlan) -> dict[str, Any]:
        """For each convolution with stripes how many stay; a digest of all positions, None if all filters are whole."""
        edits = stripes_of(plan)
        stripes = {}
        for unit, ranking in zip(self._walk.free, self.rankings, strict=True):
            for name, total in (ranking.totals if ranking is not None else {}).items():
                whole = total // unit.channels * plan.widths[unit.name]
                stripes[name] = edits[name].stripes if name in edits else whole
        if not edits:
            return {"stripes": stripes, "positions": None}
        listed = [(name, edit.filters, edit.positions) for name, edit in sorted(edits.items())]
        return {
            "stripes": stripes,
            "positions": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
        }

    def series(self, record: Mapping[str, Any]) -> Series:
        """``stripes``: the share of its stripes that each convolution keeps.

        Raises:
            RunError: If the record is damaged.
        """
        kept = counts_in("stripes", record.get("stripes", {}), self.totals)
        return {"stripes": {name: kept.get(name, total) / total for name, total in self.totals.items()}}

    def measurements(self) -> StripeMeasurements:
        """How many stripes each convolution has, and why other layers keep whole filters."""
        return StripeMeasurements(stripes=dict(self.totals), whole=dict(self.whole))

    def restore(self, measured: GranularityMeasurements) -> Self:
        """Takes the numbers of stripes of a run, for its report."""
        assert isinstance(measured, StripeMeasurements)
        self.totals = measured.stripes
        return self

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:  # noqa: ARG002
        """The convolutions with stripes and why others have none; with a plan, the stripes that stay."""
        return [self._inspect_table()] if plan is None else [report_table(plan)]

    def _inspect_table(self) -> TextTable:
        rows = []
        for unit, ranking in zip(self._walk.free, self.rankings, strict=True):
            for layer, writes in zip(ranking.layers, ranking.writes, strict=True) if ranking is not None else ():
                height, width = _kernel(self._walk.model.get_submodule(layer))
                rows.append([layer, unit.name, f"{height}x{width}", str(len(writes) * height * width)])
        rows += [[name, reason, "", ""] for name, reason in self.whole.items()]
        words = "convolutions whose filters can lose positions of their kernel; other layers lose whole channels only"
        return TextTable("Stripes", words, ["convolution", "decided with", "kernel", "stripes"], rows)


def report_table(plan: PruningPlan) -> TextTable:
    """A plan's stripes by convolution."""
    rows = []
    for name, edit in stripes_of(plan).items():
        empty = sum(not positions for positions in edit.positions)
        filters = len(edit.filters)
        rows.append([name, str(filters), str(edit.stripes), f"{edit.stripes / filters:.1f}", str(empty)])
    words = (
        "The stripes that stay: for each filter some positions of its kernel, each with the weights of all inputs. "
        "A filter without stripes gives its bias alone and stays because other layers write its channel, too."
    )
    emptied = [name for name, edit in stripes_of(plan).items() if edit.stripes == 1]
    if emptied:
        words += f" The strongest stripe of {', '.join(emptied)} stays because a layer must keep one."
    return TextTable("Stripes", words, ["convolution", "filters", "stripes", "a filter", "without"], rows)


def layers_without_stripes(walk: LayerWalk, untouched: Collection[str]) -> dict[str, str]:
    """Why layers keep whole filters, by layer."""
    whole = {}
    for layer in walk.cost_model.layers:
        reason = why_not_striped(walk.model, layer.name)
        if reason is None and layer.name in untouched:
            reason = "it is protected"
        if reason is None and not _writes_one_free_unit(walk.units, layer.name, walk.model.get_submodule(layer.name)):
            reason = "its channels do not all belong to one unit that can be cut"
        if reason is not None:
            whole[layer.name] = reason
    return whole


def _writes_one_free_unit(units: Collection[Unit], name: str, layer: nn.Module) -> bool:
    written = [(unit, one) for unit in units for one in unit.members if (one.module, one.side) == (name, "out")]
    return len(written) == 1 and written[0][0].free and written[0][1].index.size == layer.out_channels


def _norms(weight: Tensor) -> FloatArray:
    """The L2 norm of each stripe of a weight [N, C, K, K]: float64 [N, K * K]."""
    return np.asarray(weight.detach().double().norm(dim=1).flatten(1).cpu().numpy())


def filter_norms(layer: nn.Module, weight: Tensor) -> FloatArray:
    """The L2 norm of the weights of each output channel: float64 [output channels]."""
    if isinstance(layer, Transposed):
        # From [inputs, outputs of a group, ...] to [groups, outputs of a group, inputs of a group, ...].
        weight = weight.unflatten(0, (int(layer.groups), -1)).transpose(1, 2).flatten(0, 1)
    return np.asarray(weight.detach().double().flatten(1).norm(dim=1).cpu().numpy())


def _channels_written(member: Member) -> npt.NDArray[np.int64]:
    """The unit's channel that each filter of a member writes."""
    channels = np.empty(member.index.size, dtype=np.int64)
    channels[member.index.ravel()] = np.repeat(np.arange(len(member.index)), member.index.shape[1])
    return channels


def _kernel(layer: nn.Module) -> tuple[int, int]:
    height, width = layer.kernel_size  # type: ignore[misc]
    return int(height), int(width)
