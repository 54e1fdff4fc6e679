"""Convolutions in groups, each of which reads input channels of its own choice (AGSPRL, Wei et al., IEEE Access 2022).

Known of AGSPRL: a kernel pruning rate by layer, from which the number of groups follows, and a tiny attention selector
for each group that says which inputs its filters read. The rule for the number of groups, the selector's form (after
DGC, Su et al., ECCV 2020) and how it is trained are our choice.
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
"""1 / (1 - 2/3) is a hair less than 3 in floating point."""


@dataclass(frozen=True)
class GroupSpec:
    """Into how many groups a convolution falls, and how many input channels each of them reads.

    Attributes:
        groups: Groups, 1 or more; each has an equal share of the outputs.
        inputs: Input channels that each group reads, of all of them.
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
    """AGSPRL's one action, the kernel pruning rate, as groups and inputs a group [our choice].

    The count is the largest common divisor of inputs and outputs with which plain groups alone would not prune more
    than asked: at most 1 / (1 - rate). Each group then reads so many inputs that the share of kernels that stay is one
    less the rate.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        pruning_rate: Share of the kernels that go, in [0, 1).
        multiple: Inputs a group are rounded to a multiple of this where there are as many.
        counts: Group counts that are allowed beside 1; None for all.

    Raises:
        UserError: If the rate is out of range.
    """
    if not 0.0 <= pruning_rate < 1.0:
        raise UserError(f"pruning_rate: {pruning_rate} given; the share of kernels that go must be in [0, 1).")
    kept = 1.0 - pruning_rate
    fitting = [one for one in possible_groups(inputs, outputs) if one <= 1.0 / kept + SLACK]
    count = max(one for one in fitting if one == 1 or counts is None or one in counts)
    wanted = round(kept * inputs / multiple) * multiple
    return GroupSpec(count, min(max(wanted, min(multiple, inputs), 1), inputs))


def choose_inputs(scores: npt.NDArray[np.float64], inputs: int) -> tuple[IntArray, ...]:
    """For each group its best-scored inputs, ascending; of equal ones the lower.

    Args:
        scores: [groups, input channels].
        inputs: How many each group reads.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :inputs]
    return tuple(np.sort(row).astype(np.int64) for row in order)


class GatheredConv2d(nn.Module):
    """A grouped convolution after a gather: each group reads inputs of its own, which may be another group's too.

    Args:
        convolution: With groups, of as many inputs in all as are gathered.
        index: int64 [gathered], the input channel that each of the convolution's inputs is.
        in_channels: Channels of what is read.
    """

    index: Tensor

    def __init__(self, convolution: nn.Conv2d, index: Tensor, in_channels: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.in_channels = in_channels
        self.out_channels = convolution.out_channels
        # The plan has it: a file of weights is not to change what is read.
        self.register_buffer("index", index, persistent=False)

    @classmethod
    def from_convolution(cls, dense: nn.Conv2d, chosen: Sequence[IntArray]) -> "GatheredConv2d":
        """What a convolution becomes whose groups read these inputs alone, with the weights that it has for them.

        Args:
            dense: A convolution that is not grouped.
            chosen: Input channels of each group, as many for each.

        Raises:
            UserError: If it is grouped, the groups do not divide its outputs, or their inputs are not as they must be.
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
        """The convolution alone where the gather leaves everything in its place; else this."""
        everything = torch.arange(self.in_channels, device=self.index.device)
        return self.convolution if torch.equal(self.index, everything) else self

    def forward(self, images: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ...]."""
        found: Tensor = self.convolution(images.index_select(1, self.index))
        return found


def check_groups(dense: nn.Conv2d, chosen: Sequence[IntArray]) -> None:
    """Refuses groups that a convolution cannot fall into.

    Raises:
        UserError: Says what is wrong with which group.
    """
    if dense.groups != 1:
        raise UserError(f"a convolution of {dense.groups} groups is given; only one that is not grouped can be.")
    if not chosen or dense.out_channels % len(chosen):
        raise UserError(
            f"{len(chosen)} groups given for {dense.out_channels} output channels; their number must divide these."
        )
    for number, inputs in enumerate(chosen):
        inside = len(inputs) > 0 and inputs.min() >= 0 and inputs.max() < dense.in_channels
        if not inside or len(np.unique(inputs)) != len(inputs) or len(inputs) != len(chosen[0]):
            raise UserError(
                f"group {number} reads the inputs {list(map(int, inputs))}; each group reads {len(chosen[0])} of the "
                f"{dense.in_channels} input channels, each once."
            )
