"""What the rules of labels say about one operation at a time: which units there are, and which of them are free."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import Net, body, conv, mask_difference, random_plan, small_images, unit_of

from prune_env import LayerWalk
from prune_env.models.shortcut import ZeroPadShortcut
from prune_env.testing.counts import counted_macs, counted_params
from prune_env.walk.example import Example
from prune_env.walk.proof import failing_units
from prune_env.walk.unit import Member, Unit

TOLERANCE = 1e-4

SINGLE = "it has a single channel that can only be kept"
UNREAD = "nothing that can be cut reads its channels"
FAILS = "the cut network does not run"
INEXACT = "its cut would change what stays"


@dataclass(frozen=True)
class Case:
    """A network of convolution ``a`` (8 channels), the operation, and convolution ``z``.

    Attributes:
        network: Builds the network.
        free: The channels of each free unit but ``z``, which is always free.
        protected: The channels of each protected unit but ``fc``, and a part of the reason.
    """

    network: Callable[[], Net]
    free: dict[str, int] = field(default_factory=dict)
    protected: dict[str, tuple[int, str]] = field(default_factory=dict)


def free(middle: Callable[[Net, Tensor], Tensor], channels: int = 8, **units: int) -> Case:
    """The operation needs no module; every unit named is free, ``a`` with 8 channels if none is named."""
    return Case(lambda: body(middle, channels), units or {"a": 8})


def protected(middle: Callable[[Net, Tensor], Tensor], reason: str, channels: int = 8, size: int = 8) -> Case:
    """The operation needs no module; unit ``a`` has so many channels and is protected."""
    return Case(lambda: body(middle, channels), protected={"a": (size, reason)})


def last(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def half(images: Tensor) -> int:
    return images.shape[1] // 2


def by_groups(images: Tensor, groups: int = 2) -> Tensor:
    count, channels, *size = images.shape
    return images.view(count, groups, channels // groups, *size)


def written_into_zeros(*maps: Tensor, spare: int = 0) -> Tensor:
    """Copies maps side by side into a tensor of zeros."""
    result = maps[0].new_zeros(len(maps[0]), sum(one.shape[1] for one in maps) + spare, *maps[0].shape[2:])
    at = 0
    for one in maps:
        result[:, at : at + one.shape[1]] = one
        at += one.shape[1]
    return result


def added_to_the_first(images: Tensor, shortcut: Tensor, in_place: bool = False) -> Tensor:
    size = shortcut.shape[1]
    if in_place:
        images[:, :size] += shortcut
        return images
    return torch.cat([images[:, :size] + shortcut, images[:, size:]], 1)


class Splits(nn.Module):
    """Splits channels at sizes that it holds in a list, and exchanges the parts."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(images.split(self.sizes, 1)[::-1], 1)


class SplitsEvenly(nn.Module):
    """Splits channels into parts of one size that it holds, and exchanges them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(images.split(self.size, 1)[::-1], 1)


class Shuffles(nn.Module):
    """A channel shuffle whose number of groups the module holds, or whose slots are left open."""

    def __init__(self, groups: int, open_slots: bool) -> None:
        super().__init__()
        self.groups = groups
        self.open_slots = open_slots

    def forward(self, images: Tensor) -> Tensor:
        slots = -1 if self.open_slots else images.shape[1] // self.groups
        return images.view(len(images), self.groups, slots, *images.shape[2:]).transpose(1, 2).flatten(1, 2)


class ShufflesFour(nn.Module):
    """A channel shuffle whose number of groups is written into the code."""

    def forward(self, images: Tensor) -> Tensor:
        return images.view(len(images), 4, -1, *images.shape[2:]).transpose(1, 2).flatten(1, 2)


class Divides(nn.Module):
    """Slices channels at a place that it holds, and exchanges the parts."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images[:, self.first :], images[:, : self.first]], 1)


class Spectrum(nn.Module):
    """An operation without a rule."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.fft.fft2(images).abs()


class Alternates(nn.Module):
    """Multiplies channels by a constant of its own making."""

    def forward(self, images: Tensor) -> Tensor:
        return images * torch.arange(1.0, 9.0).view(1, 8, 1, 1)


def tied() -> Net:
    net = body(lambda net, x: net.c(torch.relu(net.b(x))), b=conv(8, 8), c=conv(8, 8))
    net.c.weight = net.b.weight
    return net


MOVEMENTS: dict[str, Case] = {
    "view of the same shape": free(lambda _, x: x.view(x.shape)),
    "reshape of positions": free(lambda _, x: x.reshape(len(x), x.shape[1], -1).reshape(len(x), -1, 4, 16)),
    "reshape with the channels written out": protected(lambda _, x: x.reshape(len(x), 8, 64).view(x.shape), FAILS),
    "reshape of channels into groups": free(lambda _, x: by_groups(x).flatten(1, 2), a=4),
    "reshape of channels into positions": protected(lambda _, x: x.flatten(1)[:, None, None], INEXACT, 1),
    "permute": free(lambda _, x: x.permute(0, 1, 3, 2)),
    "permute to channels last and back": Case(
        lambda: body(lambda net, x: last(x, net.t), 5, t=nn.Linear(8, 5)), {"a": 8, "t": 5}
    ),
    "transpose of positions": free(lambda _, x: x.transpose(2, 3)),
    "transpose of channels with rows": protected(lambda _, x: x.transpose(1, 2).contiguous(), SINGLE, size=1),
    "slice of positions": free(lambda _, x: x[:, :, 1:-1, ::2]),
    "slice of the first half": free(lambda _, x: x[:, : half(x)], 4, a=4),
    "slice of the second half": free(lambda _, x: x[:, half(x) :], 4, a=4),
    "slice at a place written out": protected(lambda _, x: x[:, :4], FAILS, 4, 4),
    "slice at a place that an attribute holds": Case(
        lambda: body(lambda net, x: net.s(x), s=Divides(3)), {"a": 3, "a#2": 5}
    ),
    "slice of every second channel": Case(
        lambda: body(lambda _, x: x[:, ::2], 4), protected={"a": (4, ""), "a#2": (4, UNREAD)}
    ),
    "select of a position": free(lambda _, x: x.select(2, 3)[:, :, None]),
    "select of a channel": Case(
        lambda: body(lambda _, x: x.select(1, 3)[:, None], 1), protected={"a": (7, UNREAD), "a#2": (1, SINGLE)}
    ),
    "unbind and stack": free(lambda _, x: torch.stack(x.unbind(1), 1)),
    "split into halves": free(lambda _, x: torch.cat(x.split(half(x), 1)[::-1], 1), a=4),
    "split at sizes written out": protected(
        lambda _, x: torch.cat(x.split([3, 5], 1)[::-1], 1), "split into pieces of fixed sizes"
    ),
    "split into equal parts of a size written out": protected(
        lambda _, x: torch.cat(x.split(4, 1)[::-1], 1), "", size=4
    ),
    "split at sizes in a list attribute": Case(
        lambda: body(lambda net, x: net.s(x), s=Splits(3, 5)), {"a": 3, "a#2": 5}
    ),
    "split at equal sizes in a list attribute": Case(
        lambda: body(lambda net, x: net.s(x), s=Splits(4, 4)), {"a": 4, "a#2": 4}
    ),
    "split at a size in an attribute": Case(lambda: body(lambda net, x: net.s(x), s=SplitsEvenly(4)), {"a": 4}),
    "split of positions": free(lambda _, x: torch.cat(x.split([3, 5], 2)[::-1], 2)),
    "chunk": free(lambda _, x: torch.cat(x.chunk(2, 1)[::-1], 1), a=4),
    "chunk of four": free(lambda _, x: torch.cat(x.chunk(4, 1)[::-1], 1), a=2),
    "chunk into gate and values": free(lambda _, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), 4, a=4),
    "gated linear unit": free(lambda _, x: F.glu(x, 1), 4, a=4),
    "cat of channels": Case(
        lambda: body(lambda net, x: torch.cat([net.c(x), x], 1), 13, c=conv(8, 5)), {"a": 8, "c": 5}
    ),
    "cat of positions": Case(lambda: body(lambda net, x: torch.cat([net.c(x), x], 2), c=conv(8, 8)), {"a": 8}),
    "cat with constant channels": free(lambda _, x: torch.cat([torch.ones(len(x), 3, 8, 8), x], 1), 11),
    "cat with itself and constant channels": free(lambda _, x: torch.cat([x, x.new_ones(len(x), 2, 8, 8), x], 1), 18),
    "stack and sum": Case(lambda: body(lambda net, x: torch.stack([x, net.c(x)], 1).sum(1), c=conv(8, 8)), {"a": 8}),
    "stack and flatten": Case(
        lambda: body(lambda net, x: torch.stack([x, net.c(x)], 1).flatten(1, 2), 16, c=conv(8, 8)), {"a": 8}
    ),
    "stack in turn": Case(
        lambda: body(lambda net, x: torch.stack([x, net.c(x)], 2).flatten(1, 2), 16, c=conv(8, 8)), {"a": 8}
    ),
    "pad of positions": free(lambda _, x: F.pad(x, (1, 2, 0, 3))),
    "pad of positions with another value": free(lambda _, x: F.pad(x, (1, 2, 0, 3), value=1.5)),
    "pad of positions by reflection": free(lambda _, x: F.pad(x, (1, 2, 0, 3), mode="reflect")),
    "pad of positions by repetition": free(lambda _, x: F.pad(x, (1, 2, 0, 3), mode="replicate")),
    "pad of positions in a circle": free(lambda _, x: F.pad(x, (1, 2, 0, 3), mode="circular")),
    "pad of channels": free(lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 3)), 13),
    "pad of channels with another value": free(lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 0), value=1.5), 10),
    "roll of positions": free(lambda _, x: x.roll((1, 2), (2, 3))),
    "roll of channels": protected(lambda _, x: x.roll(1, 1), "coupled in a way"),
    "flip of positions": free(lambda _, x: x.flip(2, 3)),
    "flip of channels": free(lambda _, x: x.flip(1)),
    "index of positions": free(lambda _, x: x[:, :, [3, 1, 1]]),
    "index of channels": protected(lambda _, x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]], ""),
    "index_select of positions": free(lambda _, x: x.index_select(2, torch.tensor([3, 1, 1]))),
    "gather of positions": free(lambda _, x: x.gather(2, torch.zeros_like(x[:, :, :3], dtype=torch.int64))),
    "gather of channels in the order of their values": protected(
        lambda _, x: x.gather(1, x.argsort(1)), SINGLE, size=1
    ),
    "expand of positions": free(lambda _, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)),
    "expand of one map to the channels": Case(
        lambda: body(lambda net, x: x + net.m(x).expand_as(x), m=conv(8, 1)), {"a": 8}, {"m": (1, SINGLE)}
    ),
    "repeat of positions": free(lambda _, x: x.repeat(1, 1, 2, 1)),
    "repeat of channels": free(lambda _, x: x.repeat(1, 2, 1, 1), 16),
    "repeat_interleave of channels": free(lambda _, x: x.repeat_interleave(2, 1), 16),
    "unfold of positions": free(lambda _, x: x.unfold(2, 3, 1).mean(-1)),
    "unfold into windows": Case(
        lambda: body(lambda net, x: net.w(F.unfold(x, 3, padding=1)).view(len(x), -1, 8, 8), 5, w=nn.Conv1d(72, 5, 1)),
        {"a": 8, "w": 5},
    ),
    "pixel shuffle": free(lambda _, x: F.pixel_shuffle(x, 2), 2, a=2),
    "pixel unshuffle": free(lambda _, x: F.pixel_unshuffle(x, 2), 32),
    "pixels of four corners": free(lambda _, x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1), 32),
    "nearest upsampling": free(lambda _, x: F.interpolate(x, scale_factor=2)),
    "bilinear upsampling": free(lambda _, x: F.interpolate(x, size=(5, 11), mode="bilinear", antialias=True)),
    "bicubic upsampling": free(lambda _, x: F.interpolate(x, scale_factor=1.5, mode="bicubic")),
    "sampling at given places": free(
        lambda _, x: F.grid_sample(x, torch.linspace(-1, 1, 32).view(1, 4, 4, 2).expand(len(x), -1, -1, -1))
    ),
    "channel shuffle": free(lambda _, x: by_groups(x).transpose(1, 2).flatten(1, 2), a=4),
    "channel shuffle as a module": Case(lambda: body(lambda net, x: net.s(x), s=nn.ChannelShuffle(2)), {"a": 4}),
    "copy into slices of zeros": Case(
        lambda: body(lambda net, x: written_into_zeros(net.c(x), x, spare=2), 15, c=conv(8, 5)), {"a": 8, "c": 5}
    ),
    "copy over another map": Case(
        lambda: body(lambda net, x: net.c(x).copy_(x), c=conv(8, 8)),
        protected={"a": (8, "overwritten by copy"), "c": (8, "overwritten by copy")},
    ),
}

VALUES: dict[str, Case] = {
    "in-place operations": free(lambda _, x: x.sub_(0.2).relu_().mul_(2).clamp_(max=3)),
    "in-place addition": Case(lambda: body(lambda net, x: x.add_(net.c(x)), c=conv(8, 8)), {"a": 8}),
    "in-place ReLU after a convolution": Case(
        lambda: body(lambda net, x: F.relu(net.c(x), inplace=True), 5, c=conv(8, 5)), {"a": 8, "c": 5}
    ),
    "addition": Case(lambda: body(lambda net, x: x + net.c(x), c=conv(8, 8)), {"a": 8}),
    "addition to the first channels": Case(
        lambda: body(lambda net, x: added_to_the_first(x, net.c(x)), c=conv(8, 3)), {"a": 3, "a#2": 5}
    ),
    "addition in place to the first channels": Case(
        lambda: body(lambda net, x: added_to_the_first(x, net.c(x), in_place=True), c=conv(8, 3)), {"a": 3, "a#2": 5}
    ),
    "numbers and functions of one value": free(lambda _, x: torch.tanh(2 * x - 1).pow(2).clamp(0.1, 0.9)),
    "hard swish in place": free(lambda _, x: F.hardswish(x, inplace=True)),
    "values overwritten where a condition holds": free(lambda _, x: x.masked_fill_(x < 0.1, 0.5)),
    "a choice by value": free(lambda _, x: torch.where(x > 0.5, x, 0.1 * x)),
    "multiplication by a gate of one channel": Case(
        lambda: body(lambda net, x: x * net.m(x).sigmoid(), m=conv(8, 1)), {"a": 8}, {"m": (1, SINGLE)}
    ),
    "multiplication by a gate of each channel": Case(
        lambda: body(lambda net, x: x * net.u(net.d(x.mean((2, 3)))).sigmoid()[..., None, None],
                     d=nn.Linear(8, 4), u=nn.Linear(4, 8)),
        {"a": 8, "d": 4},
    ),
    "multiplication by a map of positions": free(lambda _, x: x * torch.linspace(0, 1, 8).view(1, 1, 8, 1)),
    "multiplication by a constant of each channel": Case(
        lambda: body(lambda net, x: net.s(x), s=Alternates()), protected={"a": (8, FAILS)}
    ),
    "max pooling": free(lambda _, x: F.max_pool2d(x, 3, 2, 1)),
    "average pooling": free(lambda _, x: F.avg_pool2d(x, 2)),
    "adaptive pooling": free(lambda _, x: F.adaptive_avg_pool2d(x, 3) + F.adaptive_max_pool2d(x, 3)),
    "pooling by a power": free(lambda _, x: F.lp_pool2d(x + 0.1, 2.0, 2)),
    "pooling over channels": protected(
        lambda _, x: F.max_pool3d(x[:, None], (2, 1, 1)).squeeze(1), "max_pool3d_with_indices pools them together", 4
    ),
    "mean over positions": free(lambda _, x: x - x.mean((2, 3), keepdim=True)),
    "sum over rows": free(lambda _, x: x.sum(2, keepdim=True)),
    "greatest value of positions": free(lambda _, x: x.amax((2, 3), keepdim=True)),
    "greatest value and its place": free(lambda _, x: x.max(2, keepdim=True)[0]),
    "deviation over positions": free(lambda _, x: x.std((2, 3), keepdim=True)),
    "length over positions": free(lambda _, x: x.norm(dim=(2, 3), keepdim=True)),
    "softmax over positions": free(lambda _, x: x.flatten(2).softmax(-1).view_as(x)),
    "running sum over positions": free(lambda _, x: x.cumsum(2)),
    "mean over channels": protected(lambda _, x: x * x.mean(1, keepdim=True), INEXACT),
    "sum over channels": protected(lambda _, x: x / (1 + x.sum(1, keepdim=True)), INEXACT),
    "deviation over channels": protected(lambda _, x: x / (1 + x.std(1, keepdim=True)), INEXACT),
    "length over channels": protected(lambda _, x: F.normalize(x, dim=1), INEXACT),
    "mean over everything": protected(lambda _, x: x - x.mean(), INEXACT),
    "softmax over channels": protected(lambda _, x: x.softmax(1), "softmax mixes them together"),
    "running sum over channels": protected(lambda _, x: x.cumsum(1), "cumsum mixes them together"),
    "sorted channels": protected(lambda _, x: x.sort(1)[0], "sort mixes them together"),
    "greatest of neighbouring channels": free(lambda _, x: x.view(len(x), -1, 2, 8, 8).amax(2), 4, a=4),
    "product with a constant of positions": free(lambda _, x: x @ torch.linspace(-1, 1, 24).view(8, 3)),
    "product with a constant of rows": free(lambda _, x: torch.linspace(-1, 1, 24).view(3, 8) @ x),
    "product with a constant of channels": protected(lambda _, x: last(x, lambda y: y @ torch.eye(8)), "mm reduces"),
    "product of two maps": protected(
        lambda _, x: torch.matmul(x.flatten(2).transpose(1, 2), x.flatten(2)).view(len(x), 1, 64, 64),
        "bmm multiplies maps with each other", 1,
    ),
    "an operation without a rule": Case(
        lambda: body(lambda net, x: net.s(x), s=Spectrum()),
        protected={"a": (8, "its channels pass through _fft_c2c in 's', an operation without a rule")},
    ),
}  # fmt: skip

MODULES: dict[str, Case] = {
    "local response norm": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.LocalResponseNorm(3)),
        protected={"a": (8, "avg_pool3d in 'n' pools them together")},
    ),
    "batch norm": Case(lambda: body(lambda net, x: net.n(x), n=nn.BatchNorm2d(8)), {"a": 8}),
    "batch norm without scale": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.BatchNorm2d(8, affine=False)), {"a": 8}
    ),
    "group norm": Case(lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(4, 8)), {"a": 4}),
    "group norm without scale": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(4, 8, affine=False)), {"a": 4}
    ),
    "group norm of one channel a group": Case(lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(8, 8)), {"a": 8}),
    "group norm of a single group": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(1, 8)), protected={"a": (8, INEXACT)}
    ),
    "group norm as a function": Case(
        lambda: body(lambda _, x: F.group_norm(x, 4)), protected={"a": (2, INEXACT)}
    ),
    "instance norm": Case(lambda: body(lambda net, x: net.n(x), n=nn.InstanceNorm2d(8)), {"a": 8}),
    "instance norm with scale": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.InstanceNorm2d(8, affine=True)), {"a": 8}
    ),
    "instance norm with statistics": Case(
        lambda: body(lambda net, x: net.n(x), n=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)), {"a": 8}
    ),
    "layer norm": Case(
        lambda: body(lambda net, x: last(x, net.n), n=nn.LayerNorm(8)),
        protected={"a": (8, "native_layer_norm in 'n' normalises them together")},
    ),
    "layer norm of positions": Case(lambda: body(lambda net, x: net.n(x), n=nn.LayerNorm([8, 8])), {"a": 8}),
    "root mean square norm": Case(
        lambda: body(lambda net, x: last(x, net.n), n=nn.RMSNorm(8)), protected={"a": (8, INEXACT)}
    ),
    "one slope a channel": Case(lambda: body(lambda net, x: net.p(x - 1), p=nn.PReLU(8)), {"a": 8}),
    "one slope for all": Case(lambda: body(lambda net, x: net.p(x - 1), p=nn.PReLU()), {"a": 8}),
    "dropout": Case(lambda: body(lambda net, x: net.d(x), d=nn.Dropout2d()), {"a": 8}),
    "depthwise": Case(lambda: body(lambda net, x: net.d(x), d=conv(8, 8, groups=8)), {"a": 8}),
    "depthwise with multiplier 2": Case(lambda: body(lambda net, x: net.d(x), 16, d=conv(8, 16, groups=8)), {"a": 8}),
    "grouped": Case(lambda: body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=2)), {"a": 4, "g": 6}),
    "grouped twice with other counts": Case(
        lambda: body(lambda net, x: net.h(net.g(x)), g=conv(8, 12, groups=2), h=conv(12, 8, groups=4)),
        {"a": 4, "g": 3, "h": 2},
    ),
    "transposed": Case(lambda: body(lambda net, x: net.t(x), 5, t=nn.ConvTranspose2d(8, 5, 2, 2)), {"a": 8, "t": 5}),
    "transposed and grouped": Case(
        lambda: body(lambda net, x: net.t(x), 12, t=nn.ConvTranspose2d(8, 12, 3, 2, groups=2)), {"a": 4, "t": 6}
    ),
    "transposed and depthwise": Case(
        lambda: body(lambda net, x: net.t(x), t=nn.ConvTranspose2d(8, 8, 2, 2, groups=8)), {"a": 8}
    ),
    "transposed and depthwise with multiplier 2": Case(
        lambda: body(lambda net, x: net.t(x), 16, t=nn.ConvTranspose2d(8, 16, 2, 2, groups=8)), {"a": 8}
    ),
    "of one dimension": Case(
        lambda: body(lambda net, x: net.c(x.flatten(2))[:, :, None], 5, c=nn.Conv1d(8, 5, 3)), {"a": 8, "c": 5}
    ),
    "of three dimensions": Case(
        lambda: body(lambda net, x: net.c(x[:, :, None])[:, :, 0], 5, c=nn.Conv3d(8, 5, (1, 3, 3))), {"a": 8, "c": 5}
    ),
    "a flatten before a linear layer": Case(
        lambda: body(lambda net, x: net.t(F.adaptive_avg_pool2d(x, 2).flatten(1))[..., None, None], 5,
                     t=nn.Linear(32, 5)),
        {"a": 8, "t": 5},
    ),
    "a shuffle of more groups than slots, by an attribute": Case(
        lambda: body(lambda net, x: net.s(x), s=Shuffles(4, open_slots=False)), {"a": 2}
    ),
    "a shuffle of more groups than slots, the slots left open": Case(
        lambda: body(lambda net, x: net.s(x), s=ShufflesFour()), {"a": 2}
    ),
    "a shuffle whose slots are left open": Case(
        lambda: body(lambda net, x: net.s(x), s=Shuffles(2, open_slots=True)), {"a": 4}
    ),
    "a module that cuts itself": Case(
        lambda: body(lambda net, x: net.c(x) + net.s(x), 12, c=conv(8, 12, stride=2), s=ZeroPadShortcut(8, 12, 2)),
        {"a": 8, "c": 12},
    ),
    "a convolution used twice": Case(lambda: body(lambda net, x: net.s(net.s(x).relu()), s=conv(8, 8)), {"a": 8}),
    "two convolutions of one weight": Case(tied, {"a": 8}),
    "a convolution that reads the same map twice": Case(
        lambda: body(lambda net, x: net.c(torch.cat([x, x], 1)), 5, c=conv(16, 5)), {"a": 8, "c": 5}
    ),
    "a parameter of shape (1, C, 1, 1)": Case(
        lambda: body(lambda net, x: x * net.p + net.q, p=nn.Parameter(torch.rand(1, 8, 1, 1)),
                     q=nn.Parameter(torch.rand(1, 8, 1, 1))),
        {"a": 8},
    ),
    "a parameter of shape (C, 1, 1)": Case(
        lambda: body(lambda net, x: x * net.p, p=nn.Parameter(torch.rand(8, 1, 1))), {"a": 8}
    ),
    "a parameter of shape (C)": Case(
        lambda: body(lambda net, x: last(x, lambda y: y * net.p), p=nn.Parameter(torch.rand(8))), {"a": 8}
    ),
    "a parameter that is viewed": Case(
        lambda: body(lambda net, x: x * net.p.exp().view(1, -1, 1, 1), p=nn.Parameter(torch.rand(8))), {"a": 8}
    ),
    "a parameter of one number": Case(
        lambda: body(lambda net, x: x * net.p, p=nn.Parameter(torch.tensor(2.0))), {"a": 8}
    ),
    "a parameter of one weight for each of two maps": Case(
        lambda: body(lambda net, x: x * net.p[0].relu() + net.c(x) * net.p[1].relu() / (net.p.sum() + 1e-4),
                     c=conv(8, 8), p=nn.Parameter(torch.rand(2))),
        {"a": 8},
    ),
    "a parameter of one weight for each of two stacked maps": Case(
        lambda: body(lambda net, x: (torch.stack([x, net.c(x)], 1) * net.p.softmax(0).view(2, 1, 1, 1)).sum(1),
                     c=conv(8, 8), p=nn.Parameter(torch.rand(2))),
        {"a": 8},
    ),
    "a parameter of one number a row": Case(
        lambda: body(lambda net, x: x * net.p, p=nn.Parameter(torch.rand(8, 1))), {"a": 8}
    ),
    "a parameter of one number a position": Case(
        lambda: body(lambda net, x: x + net.p, p=nn.Parameter(torch.rand(1, 8, 8, 8))),
        protected={"a": (8, "combines its channels with a parameter of shape [1, 8, 8, 8]")},
    ),
    "a parameter of two maps": Case(
        lambda: body(lambda net, x: torch.cat([x * net.p, net.c(x) * net.p], 1), 16, c=conv(8, 8),
                     p=nn.Parameter(torch.rand(8, 1, 1))),
        {"a": 8},
    ),
}  # fmt: skip


def judge(case: Case) -> None:
    walk = LayerWalk.trace(case.network(), small_images())
    found = {unit.name: unit.channels for unit in walk.units}
    expected = {**case.free, **{name: channels for name, (channels, _) in case.protected.items()}, "z": 6, "fc": 4}
    assert found == expected, [(unit.name, unit.channels, unit.protected) for unit in walk.units]
    reasons = {unit.name: unit.protected for unit in walk.units if unit.protected is not None}
    assert set(reasons) == {*case.protected, "fc"}, reasons
    for name, (_, reason) in case.protected.items():
        assert reason in reasons[name]
        assert reasons[name]
    for seed in range(3):
        plan = random_plan(walk, seed)
        small = plan.apply(walk.model)
        assert mask_difference(walk, plan, small_images(2, seed + 1)) <= TOLERANCE
        assert walk.macs(plan.widths) == counted_macs(small, small_images())
        assert walk.params(plan.widths) == counted_params(small)


@pytest.mark.parametrize("name", MOVEMENTS)
def test_movements_carry_channels_to_where_they_are_read(name: str) -> None:
    judge(MOVEMENTS[name])


@pytest.mark.parametrize("name", VALUES)
def test_values_that_meet_are_tied_and_values_that_mix_are_protected(name: str) -> None:
    judge(VALUES[name])


@pytest.mark.parametrize("name", MODULES)
def test_layers_and_norms_hold_the_channels_that_run_through_them(name: str) -> None:
    judge(MODULES[name])


def test_a_shuffle_of_more_groups_than_slots_whose_code_does_not_say_which_shrink_is_protected() -> None:
    judge(protected(lambda _, x: by_groups(x, 4).transpose(1, 2).flatten(1, 2), "not understood", size=4))


@pytest.mark.parametrize("dimension", [1, 2], ids=["one after the other", "in turn"])
@pytest.mark.parametrize("channels", [2, 3, 8])
def test_units_that_must_stay_of_one_size_are_not_proved_apart(channels: int, dimension: int) -> None:
    net = body(
        lambda net, x: torch.stack([x, net.c(x)], dimension).flatten(1, 2),
        2 * channels,
        channels,
        c=conv(channels, channels),
    )
    unit = unit_of(LayerWalk.trace(net, small_images()), "a")
    places = {(member.module, member.side): member for member in unit.members}
    read = places["z", "in"].index
    apart = [
        replace(unit, members=(*(places[p] for p in (("a", "out"), ("bn", "out"), ("c", "in"))),
                               Member("z", "in", read[:, :1]))),
        Unit("c", channels, (places["c", "out"], Member("z", "in", read[:, 1:]))),
    ]  # fmt: skip
    assert failing_units(net.eval(), Example.given(small_images()), [unit]) == {}
    assert set(failing_units(net.eval(), Example.given(small_images()), apart)) == {"a", "c"}


@pytest.mark.parametrize("gone", [0, 1])
def test_every_channel_of_a_unit_of_two_is_cut_by_the_proof(gone: int) -> None:
    def middle(net: Net, images: Tensor) -> Tensor:
        if images.shape[1] == 1 and torch.equal(net.a.weight, whole[1 - gone :][:1]):
            return 2 * images  # wrong where this channel has gone, and only there
        return images

    net = body(middle, 2, 2).eval()
    whole = net.a.weight.detach().clone()
    unit = unit_of(LayerWalk.trace(body(lambda _, x: x, 2, 2), small_images()), "a")
    for seed in range(8):
        assert list(failing_units(net, Example.given(small_images()), [unit], seed)) == ["a"]
