"""Attention selectors: during training, they learn the input channels that each group of a convolution reads.

A selector maps the mean of each input channel to one gate for each group and channel. A group reads the channels of its
largest gates, scaled by the gates. The heads are those of DGC (Su et al., ECCV 2020), because AGSPRL names its
selectors without describing them. The gradient ignores the choice (straight-through), so that channels that are not
read can still be selected later [our choice].
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.granularity.group.gathered import GatheredConv2d, GroupSpec, check_groups

REDUCTION = 16
"""Input channels per hidden neuron of a selector."""

LEAST_HIDDEN = 4

MOMENTUM = 0.01
"""Weight of the current batch in the moving mean of the gates."""

RAMP = 1.0 / 12.0, 1.0 / 2.0
"""Shares of the training between which the number of inputs falls linearly from all to the plan's number.

DGC's ramp ends at 3/4. Here the choice is frozen at the end of the ramp, and the network has half of the training to
adapt [our choice].
"""


class GroupSelector(nn.Module):
    """Computes a gate for each group and input channel from the channels' means.

    Args:
        inputs: Number of input channels.
        groups: Group count.
    """

    def __init__(self, inputs: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.hidden = nn.Linear(inputs, max(LEAST_HIDDEN, inputs // REDUCTION), bias=False)
        self.gates = nn.Linear(self.hidden.out_features, groups * inputs)
        # Open all gates at first: a gate that starts closed has no gradient.
        nn.init.ones_(self.gates.bias)
        nn.init.normal_(self.gates.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, inputs, H, W] to gates [N, groups, inputs], 0 or more."""
        means = images.mean(dim=(2, 3))
        gates: Tensor = F.relu(self.gates(F.relu(self.hidden(means))))
        return gates.view(len(images), self.groups, -1)


class GroupPrunedConv2d(nn.Module):
    """A convolution whose groups read the inputs that a selector opens; it still has all kernels.

    Args:
        convolution: An ungrouped convolution.
        spec: The group count, and the number of inputs that each group finally reads.

    Attributes:
        reads: How many inputs each group reads now.
        means: Moving mean of the gates in training, float [groups, inputs].
        frozen: Whether the gates are fixed to ``shares`` instead of computed from the images.
        shares: Fixed gates, float [groups, inputs], zero for inputs that are not read; all zero before `freeze`.
    """

    means: Tensor
    shares: Tensor

    def __init__(self, convolution: nn.Conv2d, spec: GroupSpec) -> None:
        super().__init__()
        self.convolution = convolution
        self.spec = spec
        self.selector = GroupSelector(convolution.in_channels, spec.groups)
        self.reads = convolution.in_channels
        self.frozen = False
        self.register_buffer("means", torch.ones(spec.groups, convolution.in_channels))
        self.register_buffer("shares", torch.zeros(spec.groups, convolution.in_channels))
        self.opened: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Non-leaf tensors cannot be deep-copied, and the gates belong to the original's autograd graph.
        return {**self.__dict__, "opened": None}

    @classmethod
    def from_conv(cls, convolution: nn.Conv2d, spec: GroupSpec) -> "GroupPrunedConv2d":
        """Adds a selector to a convolution; the weights do not change.

        Raises:
            UserError: If the convolution cannot be split into these groups.
        """
        everything = torch.arange(spec.inputs).numpy()
        check_groups(convolution, [everything] * spec.groups)
        return cls(convolution, spec).to(convolution.weight.device, convolution.weight.dtype)

    def progress(self, share: float) -> None:
        """Sets how many inputs each group reads, given the completed share of the training, in [0, 1]."""
        start, end = RAMP
        done = min(1.0, max(0.0, (share - start) / (end - start)))
        whole = self.convolution.in_channels
        self.reads = round(whole + (self.spec.inputs - whole) * done)

    def forward(self, images: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ...]."""
        layer = self.convolution
        if self.frozen:
            return self._convolve(images.index_select(1, self._places.flatten()), self._kernels)
        opened: Tensor = self.selector(images)
        self.opened = opened
        gates = straight_through(opened, self.reads)
        if self.training:
            with torch.no_grad():
                self.means.lerp_(opened.mean(0).to(self.means.dtype), MOMENTUM)
        return self._convolve((gates[..., None, None] * images[:, None]).flatten(1, 2), layer.weight)

    def _convolve(self, read: Tensor, kernels: Tensor) -> Tensor:
        layer = self.convolution
        padded = F.pad(read, layer._reversed_padding_repeated_twice, mode=_mode(layer))
        return F.conv2d(padded, kernels, layer.bias, layer.stride, 0, layer.dilation, self.spec.groups)

    @property
    def _places(self) -> Tensor:
        """The inputs of each group, ascending, int64 [groups, inputs]; valid once frozen."""
        return self.shares.topk(self.spec.inputs, dim=1).indices.sort(dim=1).values

    @property
    def _kernels(self) -> Tensor:
        """The kernels of the chosen inputs, times their gates, [out_channels, inputs, height, width]."""
        places = self._places
        whole = self.convolution.weight.unflatten(0, (self.spec.groups, -1))
        read = torch.take_along_dim(whole, places[:, None, :, None, None], dim=2)
        return (read * self.shares.gather(1, places)[:, None, :, None, None]).flatten(0, 1)

    def penalty(self) -> Tensor:
        """The mean gate of the last batch, a scalar: small if few gates are open; 0 once frozen."""
        if self.frozen:
            # DistributedDataParallel needs a gradient for every parameter.
            return torch.stack([0.0 * parameter.sum() for parameter in self.selector.parameters()]).sum()
        assert self.opened is not None
        return self.opened.float().mean()

    @torch.no_grad()
    def freeze(self, images: list[Tensor] | None = None) -> None:
        """Fixes the inputs of each group: those with the largest mean gate times kernel norm.

        Args:
            images: Batches of the layer's input, [N, in_channels, H, W], for the mean gates; None takes the moving
                means of the training.
        """
        gates = self.means
        if images is not None:
            gates = torch.cat([self.selector(batch) for batch in images]).mean(0)
        norms = self.convolution.weight.flatten(2).square().sum(2)
        norms = norms.view(self.spec.groups, -1, norms.shape[1]).sum(1).sqrt()
        chosen = (gates * norms).topk(self.spec.inputs, dim=1).indices
        self.shares.copy_(torch.zeros_like(gates).scatter(1, chosen, gates.gather(1, chosen)))
        self.frozen = True

    @property
    def chosen(self) -> list[IntArray]:
        """The inputs of each group, ascending; valid once frozen."""
        return list(self._places.cpu().numpy())

    def masked(self) -> nn.Conv2d:
        """The frozen layer as an ungrouped convolution: gates are multiplied into the weights, unread inputs get 0."""
        assert self.frozen
        scaled = copy.deepcopy(self.convolution)
        with torch.no_grad():
            by_output = self.shares.repeat_interleave(scaled.out_channels // self.spec.groups, dim=0)
            scaled.weight.mul_(by_output[..., None, None])
        return scaled.train(self.training)

    def export(self) -> GatheredConv2d:
        """The frozen layer as a gather and a grouped convolution, with the gates multiplied into the weights."""
        return GatheredConv2d.from_convolution(self.masked(), self.chosen)


def straight_through(gates: Tensor, reads: int) -> Tensor:
    """Keeps the largest gates and sets the others to 0; the gradient passes to all gates unchanged.

    Args:
        gates: [N, groups, inputs].
        reads: How many gates stay open in each group.
    """
    if reads >= gates.shape[2]:
        return gates
    chosen = gates.topk(reads, dim=2).indices
    shut = torch.zeros_like(gates).scatter(2, chosen, gates.gather(2, chosen))
    return gates + (shut - gates).detach()


def _mode(layer: nn.Conv2d) -> str:
    return "constant" if layer.padding_mode == "zeros" else layer.padding_mode
