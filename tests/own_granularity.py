"""A user's own granularity: some convolutions keep only the middle of each kernel and become 1 x 1."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.config.granularity import GranularitySettings
from prune_env.granularity import ActionDimension, Granularity, GranularityContext, PlanBuilder, TextTable
from prune_env.granularity.actions import KEEP, linear
from prune_env.granularity.base import Numbers, Series
from prune_env.granularity.channel import ChannelPlanBuilder
from prune_env.plan import Edit, Edits, PruningPlan, register_edit
from prune_env.surgery import Sides
from prune_env.walk import LayerWalk, Scores


@register_edit
class MiddleEdit(Edit):
    """An edit that keeps only the middle of every kernel."""

    kind = "middle"

    taps: int = Field(default=1, ge=1, le=1)

    def validate_on(self, model: nn.Module, name: str, ins: IntArray, outs: IntArray) -> None:  # noqa: ARG002
        if not can_be(model.get_submodule(name)):
            raise PlanError(f"{name!r} has no kernel with a middle. Leave it out.")

    def weights(self, kernel: int, inputs: int, outputs: int) -> int:  # noqa: ARG002
        return inputs * outputs

    def masked(
        self,
        module: nn.Module,  # noqa: ARG002
        sides: Sides,
        cut: Callable[[Sides], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        found = dict(cut(sides))
        mask = torch.zeros_like(found["weight"])
        mask[..., 1, 1] = 1.0
        return {**found, "weight": found["weight"] * mask}

    def module(self, layer: nn.Module, ins: IntArray, outs: IntArray) -> nn.Module:  # noqa: ARG002
        assert isinstance(layer, nn.Conv2d)
        small = nn.Conv2d(layer.in_channels, layer.out_channels, 1, layer.stride, bias=layer.bias is not None)
        small.weight.data = layer.weight.data[..., 1:2, 1:2].clone()
        if layer.bias is not None and small.bias is not None:
            small.bias.data = layer.bias.data.clone()
        return small.to(layer.weight.device)


def can_be(module: nn.Module) -> bool:
    """Whether a module is a 3 x 3 convolution whose middle is where a 1 x 1 convolution would read."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.padding == (1, 1)


class MiddleSettings(GranularitySettings):
    """The settings of this granularity."""

    most: int = Field(default=2, ge=0, description="Convolutions that may lose all but their middle, 0 or more.")


class MiddlePlanBuilder(ChannelPlanBuilder):
    """Decides widths, and for each unit whether the convolution of its name keeps only the middles of its kernels."""

    def __init__(self, budget: Budget, scores: Scores, walk: LayerWalk, most: int) -> None:
        super().__init__(budget, scores)
        self._walk = walk
        self._most = most
        self._edits: dict[str, MiddleEdit] = {}

    @property
    def edits(self) -> Edits:
        return self._edits

    def decide(self, numbers: Sequence[float]) -> None:
        keep, middle = numbers
        name = self.budget.units[self.number].name
        if middle > 0.5 and len(self._edits) < self._most and can_be(self._walk.model.get_submodule(name)):
            self._edits[name] = MiddleEdit()
            self.budget = self._cheaper(name)
        super().decide((keep,))

    def decided(self, number: int) -> Mapping[str, Any]:
        return {"middle": self.budget.units[number].name in self._edits}

    def _cheaper(self, name: str) -> Budget:
        formula = self.budget.cost_form
        row = formula.names.index(name)
        fixed_out, outputs = formula.fixed_out.copy(), formula.outputs.copy()
        fixed_out[row], outputs[row] = fixed_out[row] // 9, outputs[row] // 9
        other = copy(self.budget)
        other.cost_form = replace(formula, fixed_out=fixed_out, outputs=outputs)
        return other


class Middle(Granularity):
    """Prunes channels, and kernels of some convolutions to their middles."""

    name = "middle"
    Settings = MiddleSettings
    supports_latency = False
    makes_edits = True
    settings: MiddleSettings

    def prepare(self, context: GranularityContext) -> Self:
        self._scores, self._walk = context.scores, context.scoring.walk
        return self

    @classmethod
    def action_numbers(cls, action: str) -> int:  # noqa: ARG003
        return 2

    def builder(self, budget: Budget) -> PlanBuilder:
        return MiddlePlanBuilder(budget, self._scores, self._walk, self.settings.most)

    def actions(self) -> tuple[ActionDimension, ...]:
        return KEEP[self.action], linear("middle", 0.0, 1.0)

    def limits(self) -> Mapping[str, float]:
        return {"granularity.most": self.settings.most}

    def demonstrations(self, rule_ratios: Sequence[Numbers], budget: Budget) -> list[Numbers]:  # noqa: ARG002
        return [np.column_stack([ratios, np.zeros(len(ratios))]) for ratios in rule_ratios]

    def record(self, plan: PruningPlan) -> dict[str, Any]:
        return {"middle": sorted(plan.by_layer) or None}

    def series(self, record: Mapping[str, Any]) -> Series:
        return {"middle": {"edited": float(len(record.get("middle") or ()))}}

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:  # noqa: ARG002
        return [] if plan is None else [TextTable("Middles", "What is left.", ["layer"], [[n] for n in plan.by_layer])]
