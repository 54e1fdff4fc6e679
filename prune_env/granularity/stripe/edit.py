"""The stripe edit: the kernel positions that each filter of one convolution keeps, in a plan and in the network."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.layers import channels_of
from prune_env.common.text import shorten
from prune_env.granularity.stripe.striped import StripedConv2d
from prune_env.plan import Edit, PruningPlan, register_edit
from prune_env.surgery.channels import Sides


@register_edit
class StripeEdit(Edit):
    """The stripes of one convolution: a stripe is one kernel position of one filter, over all input channels.

    From PFF (Meng et al., NeurIPS 2020).

    Attributes:
        filters: The output channels that stay, ascending, numbered as in the dense convolution.
        positions: For each filter the kernel positions that stay, ascending: row i and column j of the kernel are
            position i * kernel width + j. A filter without positions computes its bias alone.
    """

    kind = "stripe"

    filters: list[int] = Field(min_length=1)
    positions: list[list[int]] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_filter_has_its_positions(self) -> Self:
        if self.filters != sorted(set(self.filters)) or self.filters[0] < 0:
            raise ValueError("filters must be output channels in ascending order, each once")
        if len(self.filters) != len(self.positions):
            raise ValueError(f"{len(self.filters)} filters are given, and positions for {len(self.positions)}")
        for channel, positions in zip(self.filters, self.positions, strict=True):
            if positions != sorted(set(positions)) or (positions and positions[0] < 0):
                raise ValueError(f"filter {channel}: positions must be kernel positions in ascending order, each once")
        if not self.stripes:
            raise ValueError("no filter has a position; at least one stripe must stay")
        return self

    @property
    def stripes(self) -> int:
        """How many stripes stay, over all filters."""
        return sum(map(len, self.positions))

    @property
    def size(self) -> int:
        """How many stripes stay, over all filters."""
        return self.stripes

    def weights(self, kernel: int, inputs: int, outputs: int) -> int:  # noqa: ARG002  (the edit lists the stripes)
        """Elements of the weight tensor: each stripe has one weight for each input channel."""
        return inputs * self.stripes

    def validate_on(self, model: nn.Module, name: str, ins: IntArray, outs: IntArray) -> None:  # noqa: ARG002
        """Refuses a layer whose stripes cannot be these.

        Raises:
            PlanError: Names the layer and the problem.
        """
        place = shorten(repr(name))
        reason = why_not_striped(model, name)
        if reason is not None:
            raise PlanError(f"The plan cuts stripes of {place}, but {reason}. Remove this layer's edit from the plan.")
        if self.filters != outs.tolist():
            raise PlanError(
                f"The plan's stripes of {place} are those of {len(self.filters)} filters, which are not the "
                f"{len(outs)} output channels that the plan keeps; each kept channel must be listed once."
            )
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        kernel = prod(layer.kernel_size)
        for channel, positions in zip(self.filters, self.positions, strict=True):
            if positions and positions[-1] >= kernel:
                raise PlanError(
                    f"Filter {channel} of {place} keeps position {positions[-1]}, but the kernel has only the "
                    f"positions 0 to {kernel - 1}. Make a new plan."
                )

    def masked(
        self, module: nn.Module, sides: Sides, cut: Callable[[Sides], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The cut layer's tensors; the weights of removed stripes are zero. Repairs see whole kernels."""
        tensors = dict(cut(sides))
        weight = tensors["weight"]
        rows = self._in_order(sides.get("out", np.arange(channels_of(module, "out"))))
        mask = np.zeros((len(rows), prod(weight.shape[2:])), dtype=np.float32)
        for row, positions in zip(mask, rows, strict=True):
            row[positions] = 1.0
        shape = (len(rows), 1, *weight.shape[2:])
        return {**tensors, "weight": weight * torch.from_numpy(mask).reshape(shape).to(weight)}

    def module(self, layer: nn.Module, ins: IntArray, outs: IntArray) -> nn.Module:  # noqa: ARG002
        """A `StripedConv2d`, or the layer itself if every stripe stays."""
        assert isinstance(layer, nn.Conv2d)
        if self.stripes == layer.out_channels * prod(layer.kernel_size):
            return layer
        return StripedConv2d.from_convolution(layer, self._in_order(outs))

    def _in_order(self, filters: IntArray) -> list[list[int]]:
        """The positions of each filter, in the given order of the filters."""
        by_filter = dict(zip(self.filters, self.positions, strict=True))
        return [by_filter[channel] for channel in filters.tolist()]


def stripes_of(plan: PruningPlan) -> dict[str, StripeEdit]:
    """The stripes of a plan, by convolution."""
    edits = plan.edits.get(StripeEdit.kind, {})
    return {name: edit for name, edit in edits.items() if isinstance(edit, StripeEdit)}


def why_not_striped(model: nn.Module, name: str) -> str | None:
    """The reason why a module cannot lose stripes; None if it can."""
    module = model.get_submodule(name)
    if type(module) is not nn.Conv2d:
        return f"it is a {type(module).__name__} and no nn.Conv2d"
    if module.groups > 1:
        depthwise = module.groups == module.in_channels
        return "it is depthwise" if depthwise else f"it has {module.groups} groups"
    if prod(module.kernel_size) == 1:
        return "its kernel is 1 x 1, so that a stripe is a whole filter"
    if module.padding_mode != "zeros":
        return f"its padding mode is {module.padding_mode!r}, and only 'zeros' is supported"
    if sum(one is module for _, one in model.named_modules(remove_duplicate=False)) > 1:
        return "it has more than one name in the network"
    return None
