"""Grouped convolutions whose groups each read selected input channels (AGSPRL, Wei et al., IEEE Access 2022).

From AGSPRL: the number of groups follows from a kernel pruning rate for each layer, and a tiny attention selector for
each group selects the inputs of its filters. The rule for the number of groups, the selector's architecture (after DGC,
Su et al., ECCV 2020) and its training are our choice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import UserError

SLACK = 1e-9
"""Tolerance for rounding: in floating point 1 / (1 - 2/3) is slightly less than 3."""


@dataclass(frozen=True)
class GroupSpec:
    """The group count of a convolution, and the number of input channels of each group.

    Attributes:
        groups: Group count, 1 or more; all groups have equally many outputs.
        inputs: Input channels that each group reads, 1 or more, out of all input channels.
    """

    groups: int
    inputs: int


@lru_cache(maxsize=4096)
def possible_groups(inputs: int, outputs: int) -> tuple[int, ...]:
    """Group counts that divide both the inputs and the outputs, ascending; 1 is always among them."""
    common = gcd(inputs, outputs)
    return tuple(count for count in range(1, common + 1) if common % count == 0)


def configure_groups(
    inputs: int, outputs: int, pruning_rate: float, multiple: int = 1, counts: Collection[int] | None = None
) -> GroupSpec:
    """Translates AGSPRL's action, the kernel pruning rate, into a group count and inputs per group [our choice].

    The count is the largest allowed common divisor of inputs and outputs that is at most 1 / (1 - rate), so that plain
    groups would not prune more than the rate. The inputs per group then make the share of kernels that stays 1 - rate.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        pruning_rate: Share of the kernels that go, in [0, 1).
        multiple: Inputs per group are rounded to a multiple of this, if the convolution has that many.
        counts: Allowed group counts besides 1; None allows all.

    Raises:
        UserError: If the rate is out of range.
    """
    if not 0.0 <= pruning_rate < 1.0:
        raise UserError(f"pruning_rate: {pruning_rate} given; the share of kernels that go must be in [0, 1).")
    kept = 1.0 - pruning_rate
    fitting = [count for count in possible_groups(inputs, outputs) if count <= 1.0 / kept + SLACK]
    groups = max(count for count in fitting if count == 1 or counts is None or count in counts)
    wanted = round(kept * inputs / multiple) * multiple
    return GroupSpec(groups, min(max(wanted, min(multiple, inputs), 1), inputs))


def choose_inputs(scores: npt.NDArray[np.float64], inputs: int) -> tuple[IntArray, ...]:
    """The best-scored inputs of each group, ascending; ties go to the lower channel.

    Args:
        scores: [groups, input channels].
        inputs: How many inputs each group reads.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :inputs]
    return tuple(np.sort(row).astype(np.int64) for row in order)


class GatheredConv2d(nn.Module):
    """A grouped convolution after a gather: each group reads selected inputs, and groups may share inputs.

    Args:
        convolution: The grouped convolution; its input channels are the gathered channels.
        index: int64 [gathered]: for each input of the convolution the input channel to gather.
        in_channels: Input channels before the gather.
    """

    index: Tensor

    def __init__(self, convolution: nn.Conv2d, index: Tensor, in_channels: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.in_channels = in_channels
        self.out_channels = convolution.out_channels
        # The plan holds the index; a weight file must not change it.
        self.register_buffer("index", index, persistent=False)

    @classmethod
    def from_convolution(cls, dense: nn.Conv2d, chosen: Sequence[IntArray]) -> "GatheredConv2d":
        """Splits a convolution into groups that read only their chosen inputs, with the dense weights of those inputs.

        Args:
            dense: An ungrouped convolution.
            chosen: Input channels of each group, equally many for each.

        Raises:
            UserError: If the convolution is grouped, the group count does not divide its outputs, or the inputs of a
                group are not valid.
        """
        groups = len(chosen)
        check_groups(dense, chosen)
        share = dense.out_channels // groups
        small = nn.Conv2d(
            groups * len(chosen[0]),
            dense.out_channels,
            dense.kernel_size,  # type: ignore[arg-type]
            dense.stride,  # type: ignore[arg-type]
            dense.padding,  # type: ignore[arg-type]
            dense.dilation,  # type: ignore[arg-type]
            groups,
            dense.bias is not None,
            dense.padding_mode,
            dense.weight.device,
            dense.weight.dtype,
        )
        device = dense.weight.device
        with torch.no_grad():
            for number, inputs in enumerate(chosen):
                rows = slice(number * share, (number + 1) * share)
                small.weight[rows] = dense.weight[rows].index_select(1, torch.as_tensor(inputs, device=device))
            if dense.bias is not None and small.bias is not None:
                small.bias.copy_(dense.bias)
        small.weight.requires_grad_(dense.weight.requires_grad)
        if small.bias is not None and dense.bias is not None:
            small.bias.requires_grad_(dense.bias.requires_grad)
        made = cls(small, torch.as_tensor(np.concatenate(chosen), device=device), dense.in_channels)
        return made.train(dense.training)

    def simplest(self) -> nn.Module:
        """The convolution alone if the gather keeps all channels in their order, else this module."""
        everything = torch.arange(self.in_channels, device=self.index.device)
        return self.convolution if torch.equal(self.index, everything) else self

    def forward(self, images: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ...]."""
        outputs: Tensor = self.convolution(images.index_select(1, self.index))
        return outputs


def check_groups(dense: nn.Conv2d, chosen: Sequence[IntArray]) -> None:
    """Refuses groups into which a convolution cannot be split.

    Raises:
        UserError: Names the group and the problem.
    """
    if dense.groups != 1:
        raise UserError(f"a convolution of {dense.groups} groups is given; only an ungrouped one can be split.")
    if not chosen or dense.out_channels % len(chosen):
        raise UserError(
            f"{len(chosen)} groups given for {dense.out_channels} output channels; the number of groups must "
            "divide the number of output channels."
        )
    for number, inputs in enumerate(chosen):
        inside = len(inputs) > 0 and inputs.min() >= 0 and inputs.max() < dense.in_channels
        if not inside or len(np.unique(inputs)) != len(inputs) or len(inputs) != len(chosen[0]):
            raise UserError(
                f"group {number} reads the inputs {list(map(int, inputs))}; each group must read one or more of the "
                f"input channels 0 to {dense.in_channels - 1}, each once, and as many as group 0 ({len(chosen[0])})."
            )
