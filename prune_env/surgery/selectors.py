"""Attention selectors: which input channels each group of a convolution reads, learned while it is trained.

A selector sees the mean of each input channel and gives every group a gate for every channel; a group reads the
channels of its largest gates, scaled by them (DGC, Su et al., ECCV 2020, whose heads these are; AGSPRL says as much of
its selectors as their name). Here the choice is passed straight through backwards, so that a channel that is not read
can come to be [our choice].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.surgery.groups import GatheredConv2d, GroupSpec, check_groups

REDUCTION = 16
"""Input channels for each hidden neuron of a selector."""

LEAST_HIDDEN = 4

RAMP = 1.0 / 12.0, 3.0 / 4.0
"""Shares of a training between which the inputs that are read fall evenly from all to as many as are wanted (DGC)."""


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
        shares: Mean gates, float [groups, inputs], zero where nothing is read, once it is frozen; else None.
    """

    shares: Tensor | None

    def __init__(self, convolution: nn.Conv2d, spec: GroupSpec) -> None:
        super().__init__()
        self.convolution = convolution
        self.spec = spec
        self.selector = GroupSelector(convolution.in_channels, spec.groups)
        self.reads = convolution.in_channels
        self.register_buffer("shares", None)
        self.opened: Tensor | None = None

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
        if self.shares is not None:
            gates = self.shares.expand(len(images), -1, -1)
        else:
            self.opened = self.selector(images)
            gates = straight_through(self.opened, self.reads)
        gated = gates[..., None, None] * images[:, None]
        layer = self.convolution
        padded = F.pad(gated.flatten(1, 2), layer._reversed_padding_repeated_twice, mode=_mode(layer))
        return F.conv2d(padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, self.spec.groups)

    def penalty(self) -> Tensor:
        """The mean gate of the last images: small where few are open."""
        assert self.opened is not None
        return self.opened.mean()

    @torch.no_grad()
    def freeze(self, images: list[Tensor]) -> None:
        """From now on each group reads the inputs that it would read most, by mean gate times kernel norm.

        Args:
            images: What the layer reads, batches [N, in_channels, H, W].
        """
        gates = torch.cat([self.selector(batch) for batch in images]).mean(0)
        norms = self.convolution.weight.flatten(2).square().sum(2)
        norms = norms.view(self.spec.groups, -1, norms.shape[1]).sum(1).sqrt()
        chosen = (gates * norms).topk(self.spec.inputs, dim=1).indices
        self.shares = torch.zeros_like(gates).scatter(1, chosen, gates.gather(1, chosen))

    def export(self) -> GatheredConv2d:
        """The frozen layer as a gather and a grouped convolution, its gates in the weights."""
        assert self.shares is not None
        layer = self.convolution
        scaled = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        with torch.no_grad():
            by_output = self.shares.repeat_interleave(layer.out_channels // self.spec.groups, dim=0)
            scaled.weight.copy_(layer.weight * by_output[..., None, None])
            if layer.bias is not None and scaled.bias is not None:
                scaled.bias.copy_(layer.bias)
        chosen = self.shares.topk(self.spec.inputs, dim=1).indices.sort(dim=1).values.cpu().numpy()
        return GatheredConv2d.from_convolution(scaled.train(self.training), list(chosen))


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
