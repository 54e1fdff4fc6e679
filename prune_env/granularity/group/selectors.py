"""Attention selectors: which input channels each group of a convolution reads, learned while it is trained.

A selector sees the mean of each input channel and gives every group a gate for every channel; a group reads the
channels of its largest gates, scaled by them (DGC, Su et al., ECCV 2020, whose heads these are; AGSPRL says as much of
its selectors as their name). Here the choice is passed straight through backwards, so that a channel that is not read
can come to be [our choice].
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.granularity.group.gathered import GatheredConv2d, GroupSpec, check_groups

REDUCTION = 16
"""Input channels for each hidden neuron of a selector."""

LEAST_HIDDEN = 4

MOMENTUM = 0.01
"""Weight of a batch's gates in their moving mean."""

RAMP = 1.0 / 12.0, 1.0 / 2.0
"""Shares of a training between which the inputs that are read fall evenly from all to as many as are wanted.

DGC's ends at 3/4. Here the choice is then frozen, and what is frozen has half of the training to adapt [our choice].
"""


class GroupSelector(nn.Module):
    """A gate for each group and input channel, from the channels' means.

    Args:
        inputs: Input channels.
        groups: Groups.
    """

    def __init__(self, inputs: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.hidden = nn.Linear(inputs, max(LEAST_HIDDEN, inputs // REDUCTION), bias=False)
        self.gates = nn.Linear(self.hidden.out_features, groups * inputs)
        # All gates open at first, or those that happen to be shut would never learn.
        nn.init.ones_(self.gates.bias)
        nn.init.normal_(self.gates.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Gates, 0 or more, [N, groups, inputs], of images [N, inputs, H, W]."""
        means = images.mean(dim=(2, 3))
        gates: Tensor = F.relu(self.gates(F.relu(self.hidden(means))))
        return gates.view(len(images), self.groups, -1)


class GroupPrunedConv2d(nn.Module):
    """A convolution whose groups read the inputs that a selector opens; all its kernels are still there.

    Args:
        convolution: Not grouped.
        spec: Its groups, and how many inputs each is to read in the end.

    Attributes:
        reads: How many inputs each group reads now.
        means: Moving mean of the gates in training, float [groups, inputs].
        frozen: Whether the gates are those of ``shares``, whatever the images.
        shares: Mean gates, float [groups, inputs], zero where nothing is read; all zero before it is frozen.
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
        # A copy has opened no gates yet; those of the original hang on its gradients.
        return {**self.__dict__, "opened": None}

    @classmethod
    def from_conv(cls, convolution: nn.Conv2d, spec: GroupSpec) -> "GroupPrunedConv2d":
        """What trains a convolution into groups; its weights stay as they are.

        Raises:
            UserError: If it cannot fall into these groups.
        """
        everything = torch.arange(spec.inputs).numpy()
        check_groups(convolution, [everything] * spec.groups)
        return cls(convolution, spec).to(convolution.weight.device, convolution.weight.dtype)

    def progress(self, share: float) -> None:
        """Sets how many inputs are read after a share of the training, in [0, 1]."""
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
        """The inputs of each group, ascending, int64 [groups, inputs], once it is frozen."""
        return self.shares.topk(self.spec.inputs, dim=1).indices.sort(dim=1).values

    @property
    def _kernels(self) -> Tensor:
        """The kernels that are read, times their gates, [out_channels, inputs, height, width]."""
        places = self._places
        whole = self.convolution.weight.unflatten(0, (self.spec.groups, -1))
        read = torch.take_along_dim(whole, places[:, None, :, None, None], dim=2)
        return (read * self.shares.gather(1, places)[:, None, :, None, None]).flatten(0, 1)

    def penalty(self) -> Tensor:
        """The mean gate of the last images: small where few are open; 0 once it is frozen."""
        if self.frozen:
            # Processes that share a training wait for a gradient of every parameter.
            return torch.stack([0.0 * parameter.sum() for parameter in self.selector.parameters()]).sum()
        assert self.opened is not None
        return self.opened.float().mean()

    @torch.no_grad()
    def freeze(self, images: list[Tensor] | None = None) -> None:
        """From now on each group reads the inputs that it would read most, by mean gate times kernel norm.

        Args:
            images: What the layer reads, batches [N, in_channels, H, W]; None for what it has read in training.
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
        """The inputs of each group, ascending, once it is frozen."""
        return list(self._places.cpu().numpy())

    def masked(self) -> nn.Conv2d:
        """The frozen layer as a whole convolution, its gates in the weights: what is not read has weights of zero."""
        assert self.frozen
        scaled = copy.deepcopy(self.convolution)
        with torch.no_grad():
            by_output = self.shares.repeat_interleave(scaled.out_channels // self.spec.groups, dim=0)
            scaled.weight.mul_(by_output[..., None, None])
        return scaled.train(self.training)

    def export(self) -> GatheredConv2d:
        """The frozen layer as a gather and a grouped convolution, its gates in the weights."""
        return GatheredConv2d.from_convolution(self.masked(), self.chosen)


def straight_through(gates: Tensor, reads: int) -> Tensor:
    """The largest gates, the others shut; backwards as if none were.

    Args:
        gates: [N, groups, inputs].
        reads: How many stay open in each group.
    """
    if reads >= gates.shape[2]:
        return gates
    chosen = gates.topk(reads, dim=2).indices
    shut = torch.zeros_like(gates).scatter(2, chosen, gates.gather(2, chosen))
    return gates + (shut - gates).detach()


def _mode(layer: nn.Conv2d) -> str:
    return "constant" if layer.padding_mode == "zeros" else layer.padding_mode
