"""The group edit: the groups of one convolution, in a plan and in the network."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.layers import channels_of
from prune_env.common.text import shorten
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.plan import Edit, PruningPlan, register_edit
from prune_env.surgery.channels import Sides, places_of, sliced_tensors


@register_edit
class GroupEdit(Edit):
    """The groups of one convolution, in the order in which the convolution computes them.

    Attributes:
        inputs: For each group its input channels, ascending, numbered as in the dense convolution.
        filters: For each group its output channels, ascending, numbered as in the dense convolution. If the
            channels of all groups in a row are not ascending, all members of the unit that the convolution writes take
            their order.
    """

    kind = "group"
    version_1_field = "grouped"

    inputs: list[list[int]] = Field(min_length=1)
    filters: list[list[int]] = Field(min_length=1)

    @model_validator(mode="after")
    def _groups_are_alike(self) -> Self:
        if len(self.inputs) != len(self.filters):
            raise ValueError(f"inputs are given for {len(self.inputs)} groups and filters for {len(self.filters)}")
        for what, lists in (("inputs", self.inputs), ("filters", self.filters)):
            for number, channels in enumerate(lists):
                if channels != sorted(set(channels)) or not channels or channels[0] < 0:
                    raise ValueError(f"group {number}: {what} must be channels in ascending order, each once")
                if len(channels) != len(lists[0]):
                    raise ValueError(f"group {number} has {len(channels)} {what}, and group 0 {len(lists[0])}")
        repeated = [channel for channel, times in Counter(self.filters_in_order).items() if times > 1]
        if repeated:
            raise ValueError(f"output channel {min(repeated)} is in more than one group")
        return self

    @property
    def filters_in_order(self) -> list[int]:
        """All output channels, group after group."""
        return [channel for filters in self.filters for channel in filters]

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.inputs)

    @property
    def size(self) -> int:
        """How many groups there are."""
        return self.groups

    @property
    def reads(self) -> int:
        """How many input channels each group reads."""
        return len(self.inputs[0])

    def order(self) -> IntArray:
        """The output channels, group after group, int64 [outputs]."""
        return np.array(self.filters_in_order, dtype=np.int64)

    def weights(self, kernel: int, inputs: int, outputs: int) -> int:  # noqa: ARG002  (each group reads its own number)
        """Elements of the weight tensor: each filter has a kernel for each input that its group reads."""
        return kernel * self.reads * outputs

    def validate_on(self, model: nn.Module, name: str, ins: IntArray, outs: IntArray) -> None:
        """Refuses a layer that cannot be split into these groups.

        Raises:
            PlanError: Names the layer and the problem.
        """
        place = shorten(repr(name))
        reason = why_not_groupable(model, name)
        if reason is not None:
            raise PlanError(f"The plan groups {place}, but {reason}. Remove this layer's edit from the plan.")
        if sorted(self.filters_in_order) != outs.tolist():
            raise PlanError(
                f"The plan's {self.groups} groups of {place} list {len(self.filters_in_order)} filters, which are not "
                f"the {len(outs)} output channels that the plan keeps; each kept channel must be in exactly one group."
            )
        for number, inputs in enumerate(self.inputs):
            outside = np.setdiff1d(inputs, ins)
            if len(outside):
                raise PlanError(
                    f"Group {number} of {place} reads input channel {outside[0]}, which is not one of the "
                    f"{len(ins)} input channels that the plan keeps."
                )

    def masked(
        self, module: nn.Module, sides: Sides, cut: Callable[[Sides], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The cut layer's tensors: each group is cut separately, and kernels of its unread inputs are zero."""
        whole = {side: sides.get(side, np.arange(channels_of(module, side))) for side in ("out", "in")}
        tensors = sliced_tensors(module, whole)
        tensors["weight"].zero_()
        rows, columns = places_of(whole["out"]), places_of(whole["in"])
        for filters, inputs in zip(self.filters, self.inputs, strict=True):
            own = {"out": np.array(filters, dtype=np.int64), "in": np.array(inputs, dtype=np.int64)}
            part = cut(own)
            there = torch.as_tensor(rows[own["out"]], device=tensors["weight"].device)
            read = torch.as_tensor(columns[own["in"]], device=tensors["weight"].device)
            tensors["weight"][there[:, None], read] = part["weight"]
            if "bias" in tensors:
                tensors["bias"][there] = part["bias"]
        return tensors

    def module(self, layer: nn.Module, ins: IntArray, outs: IntArray) -> nn.Module:  # noqa: ARG002
        """A gather and a grouped convolution, or the convolution alone if the gather would change nothing."""
        assert isinstance(layer, nn.Conv2d)
        places = places_of(ins)
        chosen = [np.sort(places[inputs]) for inputs in self.inputs]
        return GatheredConv2d.from_convolution(layer, chosen).simplest()


Groups = Mapping[str, GroupEdit]
"""Group edits by convolution."""


def groups_of(plan: PruningPlan) -> dict[str, GroupEdit]:
    """The groups of a plan, by convolution."""
    edits = plan.edits.get(GroupEdit.kind, {})
    return {name: edit for name, edit in edits.items() if isinstance(edit, GroupEdit)}


def with_groups(plan: PruningPlan, grouped: Groups) -> PruningPlan:
    """The plan with other groups; does not update the plan's costs."""
    others = {kind: edits for kind, edits in plan.edits.items() if kind != GroupEdit.kind}
    return plan.model_copy(update={"edits": {**others, GroupEdit.kind: dict(grouped)} if grouped else others})


def why_not_groupable(model: nn.Module, name: str) -> str | None:
    """The reason why a module cannot be grouped; None if it can."""
    module = model.get_submodule(name)
    if type(module) is not nn.Conv2d:
        return f"it is a {type(module).__name__} and no nn.Conv2d"
    if module.groups > 1:
        return f"it has {module.groups} groups already"
    if sum(one is module for _, one in model.named_modules(remove_duplicate=False)) > 1:
        return "it has more than one name in the network"
    return None
