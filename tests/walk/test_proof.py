"""Every unit is proved by a cut: units that cannot be cut are protected with a reason, and wrong units are found."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import (
    Net,
    body,
    chain,
    conv,
    example,
    mask_difference,
    outputs,
    random_plan,
    randomise,
    small_images,
    traced,
    unit_of,
)

from prune_env import LayerWalk
from prune_env.common.copying import copied
from prune_env.testing.counts import counted_macs, counted_params
from prune_env.walk.example import Example
from prune_env.walk.proof import failing_units
from prune_env.walk.unit import Member, Unit

TOLERANCE = 1e-4


class PaddedBlock(nn.Module):
    """A residual block whose option-A shortcut pads both sides by a lambda, as published CIFAR ResNets do."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        pad = (outputs - inputs) // 2
        self.shortcut: Callable[[Tensor], Tensor] = (
            (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))) if stride > 1 else (lambda x: x)
        )

    def forward(self, images: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(images)))))
        return torch.relu(inner + self.shortcut(images))


class PaddedResNet(nn.Module):
    """Three stages of two blocks with 8, 16 and 32 channels, coupled by an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(PaddedBlock(8, 8, 1), PaddedBlock(8, 8, 1))
        self.layer2 = nn.Sequential(PaddedBlock(8, 16, 2), PaddedBlock(16, 16, 1))
        self.layer3 = nn.Sequential(PaddedBlock(16, 32, 2), PaddedBlock(32, 32, 1))
        self.linear = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(images))))))
        return self.linear(stream.mean((2, 3)))


def padded_resnet() -> PaddedResNet:
    torch.manual_seed(0)
    return randomise(PaddedResNet())


class TestOptionAShortcutInTheUsersOwnCode:
    @pytest.mark.parametrize("images", [example("cifar_resnet20"), torch.zeros(1, 3, 32, 32)], ids=["noise", "zeros"])
    def test_the_padded_channels_are_protected_and_the_rest_is_free(self, images: Tensor) -> None:
        walk = LayerWalk.trace(padded_resnet(), images)
        padded = {unit.name: unit.channels for unit in walk.units if "does not run" in (unit.protected or "")}
        assert padded == {"layer2.0.conv2": 8, "layer3.0.conv2": 16}
        stream = unit_of(walk, "conv1")
        assert stream.free
        assert {member.module for member in stream.members if member.side == "out"} >= {
            "layer3.1.conv2",
            "layer3.1.bn2",
        }
        assert len(walk.free) == 7

    @pytest.mark.parametrize("seed", range(4))
    def test_random_plans_are_exact(self, seed: int) -> None:
        walk = LayerWalk.trace(padded_resnet(), example("cifar_resnet20"))
        plan = random_plan(walk, seed)
        assert mask_difference(walk, plan, example("cifar_resnet20", 2, 1)) <= TOLERANCE
        assert walk.macs(plan.widths) == counted_macs(plan.apply(walk.model), example("cifar_resnet20"))


def shuffle(images: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    return images.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(images.shape)


def last(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# Networks in which unit "a" cannot be cut.
RESISTING: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: body(lambda net, x: last(x, net.n), n=nn.LayerNorm(8)),
    "layer norm without scale": lambda: body(
        lambda net, x: last(x, net.n), n=nn.LayerNorm(8, elementwise_affine=False)
    ),
    "layer norm as a function": lambda: body(lambda _, x: last(x, lambda y: F.layer_norm(y, y.shape[-1:]))),
    "group norm without scale": lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(1, 8, affine=False)),
    "local response norm": lambda: body(lambda net, x: net.n(x), n=nn.LocalResponseNorm(3, alpha=1.0)),
    "mean over the channels": lambda: body(lambda _, x: x * x.mean(1, keepdim=True)),
    "deviation over the channels": lambda: body(lambda _, x: x / (1 + x.std(1, keepdim=True))),
    "softmax over the channels": lambda: body(lambda _, x: x.softmax(1)),
    "sum along the channels": lambda: body(lambda _, x: x.cumsum(1)),
    "sorted channels": lambda: body(lambda _, x: x.sort(1)[0]),
    "rolled channels": lambda: body(lambda _, x: x.roll(1, 1)),
    "chosen channels": lambda: body(lambda _, x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]]),
    "constant added": lambda: body(lambda _, x: x + torch.arange(8.0).view(1, 8, 1, 1)),
    "the first half of the channels": lambda: body(lambda _, x: x[:, :4], 4),
    "all but two channels": lambda: body(lambda _, x: x[:, 2:], 6),
    "every second channel": lambda: body(lambda _, x: x[:, ::2], 4),
    "a fixed number of channels in a reshape": lambda: body(lambda _, x: x.view(len(x), 8, 8, 8)),
    "maximum of neighbouring channels": lambda: body(lambda _, x: x.view(len(x), 4, 2, 8, 8).amax(2), 4),
    "rows taken for channels": lambda: body(lambda _, x: x.transpose(1, 2).contiguous()),
    "self-attention": lambda: body(
        lambda net, x: net.t(*[x.flatten(2).transpose(1, 2)] * 3)[0].transpose(1, 2).reshape(x.shape),
        t=nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "a linear layer over the pixels": lambda: body(
        lambda net, x: net.t(x.flatten(2)).view(x.shape), t=nn.Linear(64, 64)
    ),
    "one map added to all channels": lambda: body(lambda net, x: net.m(x).expand(-1, 8, -1, -1) + x, m=conv(8, 1)),
}


@pytest.mark.parametrize("images", [small_images(), torch.zeros(1, 3, 8, 8)], ids=["noise", "zeros"])
@pytest.mark.parametrize("shape", RESISTING)
def test_what_cannot_be_cut_is_protected_with_a_reason_and_the_rest_is_exact(shape: str, images: Tensor) -> None:
    walk = LayerWalk.trace(RESISTING[shape](), images)
    reason = unit_of(walk, "a").protected
    assert reason
    assert "damaged" not in reason, "the reason speaks of a file, but there is none"
    assert unit_of(walk, "z").free
    for seed in range(3):
        plan = random_plan(walk, seed)
        assert mask_difference(walk, plan, small_images(2, seed + 1)) <= TOLERANCE
        assert walk.params(plan.widths) == counted_params(plan.apply(walk.model))


# Networks in which unit "a" can be cut: the removed channels do not affect the other channels.
HARMLESS: dict[str, Callable[[], nn.Module]] = {
    "gated half by half": lambda: body(lambda _, x: F.glu(x, 1), 4),
    "shuffled channels by a module": lambda: body(lambda net, x: net.s(x), s=nn.ChannelShuffle(2)),
    "zeros put before the channels": lambda: body(lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 0)), 10),
    "group norm": lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(2, 8)),
    "instance norm with statistics": lambda: body(
        lambda net, x: net.n(x), n=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    ),
    "reversed channels": lambda: body(lambda _, x: x.flip(1)),
    "shuffled channels": lambda: body(lambda _, x: shuffle(x)),
    "bare parameter added": lambda: body(lambda net, x: x + net.p, p=nn.Parameter(torch.arange(8.0).view(1, 8, 1, 1))),
    "bare parameter multiplied": lambda: body(
        lambda net, x: x * net.p, p=nn.Parameter(torch.arange(8.0).view(8, 1, 1))
    ),
    "half the channels convolved": lambda: body(
        lambda net, x: torch.cat([net.l(x.chunk(2, 1)[0]), x.chunk(2, 1)[1]], 1), l=conv(4, 4)
    ),
    "pixel shuffle": lambda: body(lambda _, x: F.pixel_shuffle(x, 2), 2),
    "pixel unshuffle": lambda: body(lambda _, x: F.pixel_unshuffle(x, 2), 32),
    "transposed convolution": lambda: body(lambda net, x: net.t(x), t=nn.ConvTranspose2d(8, 8, 2, 2)),
    "one map multiplied into all channels": lambda: body(lambda net, x: x * net.m(x).sigmoid(), m=conv(8, 1)),
    "part of a group": lambda: body(
        lambda net, x: net.g(torch.cat([x, net.l(x)], 1)), 12, l=conv(8, 4), g=conv(12, 12, groups=2)
    ),
    "instance norm": lambda: body(lambda net, x: net.n(x), n=nn.InstanceNorm2d(8)),
    "a bare number": lambda: body(lambda net, x: x * net.p, p=nn.Parameter(torch.tensor(2.0))),
    "dropout of channels": lambda: body(lambda net, x: net.d(x), d=nn.Dropout2d()),
    "unbound and stacked": lambda: body(lambda _, x: torch.stack(x.unbind(1), 1)),
}


@pytest.mark.parametrize("shape", HARMLESS)
def test_what_does_not_mix_channels_stays_free_and_is_exact(shape: str) -> None:
    walk = LayerWalk.trace(HARMLESS[shape](), small_images())
    assert unit_of(walk, "a").free
    for seed in range(3):
        plan = random_plan(walk, seed)
        assert mask_difference(walk, plan, small_images(2, seed + 1)) <= TOLERANCE
        assert walk.macs(plan.widths) == counted_macs(plan.apply(walk.model), small_images())
        assert walk.params(plan.widths) == counted_params(plan.apply(walk.model))


@pytest.mark.parametrize("channels", range(2, 9))
def test_a_wrong_order_of_few_channels_is_never_missed(channels: int) -> None:
    walk = LayerWalk.trace(body(lambda _, x: x, channels, channels), small_images())
    unit = unit_of(walk, "a")
    members = [
        replace(member, index=member.index[::-1].copy()) if member.side == "in" else member for member in unit.members
    ]
    for seed in range(20):
        wrong = replace(unit, members=tuple(members))
        assert list(failing_units(walk.model, Example.given(small_images()), [wrong], seed)) == ["a"]


def test_layers_of_tied_weights_are_one_unit() -> None:
    net = Net(
        lambda net, x: net.d(net.c(torch.relu(net.b(torch.relu(net.a(x)))))),
        a=conv(3, 8),
        b=conv(8, 8),
        c=conv(8, 8),
        d=conv(8, 3),
    )
    net.c.weight = net.b.weight
    for images in (small_images(), torch.zeros(1, 3, 8, 8)):
        walk = LayerWalk.trace(net, images)
        assert [unit.name for unit in walk.free] == ["a"]
        for seed in range(3):
            assert mask_difference(walk, random_plan(walk, seed), small_images(2, 1)) <= TOLERANCE


def test_channels_added_to_the_image_are_protected() -> None:
    net = Net(lambda net, x: net.b(torch.relu(x + net.a(x))), a=conv(3, 3), b=conv(3, 4))
    walk = LayerWalk.trace(net, small_images())
    assert walk.free == ()
    assert "does not run" in unit_of(walk, "a").protected


def test_channels_that_are_returned_as_well_as_read_are_protected() -> None:
    net = Net(lambda net, x: (net.a(x), net.b(net.a(x))), a=conv(3, 8), b=conv(8, 3))
    walk = LayerWalk.trace(net, small_images())
    assert "network's output" in unit_of(walk, "a").protected


def test_a_convolution_of_one_output_channel_is_not_depthwise() -> None:
    net = body(lambda net, x: net.n(net.m(x)), m=conv(8, 1), n=conv(1, 8))
    walk = LayerWalk.trace(net, small_images())
    assert unit_of(walk, "m").channels == 1
    assert unit_of(walk, "n").channels == 8
    assert {unit.name for unit in walk.free} == {"a", "n", "z"}
    for seed in range(3):
        assert mask_difference(walk, random_plan(walk, seed), small_images(2, seed)) <= TOLERANCE


def test_two_convolutions_of_one_channel_in_a_row_are_two_units() -> None:
    net = body(lambda net, x: x * net.n(net.m(x)).sigmoid(), m=conv(8, 1), n=conv(1, 1))
    walk = LayerWalk.trace(net, small_images())
    assert [unit.name for unit in walk.units] == ["a", "m", "n", "z", "fc"]
    assert [unit.name for unit in walk.free] == ["a", "z"]


def shifted(unit: Unit, module: str, side: str) -> Unit:
    """Returns the unit with one member's places shifted by one channel."""
    members = tuple(
        Member(member.module, member.side, np.roll(member.index, 1, axis=0))
        if (member.module, member.side) == (module, side)
        else member
        for member in unit.members
    )
    assert members != unit.members
    return replace(unit, members=members)


class TestWrongUnits:
    @pytest.mark.parametrize("place", [("3", "in"), ("1", "out")])
    @pytest.mark.parametrize("seed", range(5))
    def test_shifted_places_are_reported_while_right_units_pass(self, place: tuple[str, str], seed: int) -> None:
        walk = LayerWalk.trace(chain(), small_images())
        first, second, _ = walk.units
        model = walk.model.eval()
        assert failing_units(model, Example.given(small_images()), [first, second], seed) == {}
        failures = failing_units(model, Example.given(small_images()), [shifted(first, *place), second], seed)
        assert list(failures) == ["0"]
        assert "coupled in a way not understood" in failures["0"]

    def test_a_shifted_flatten_is_reported(self) -> None:
        walk = LayerWalk.trace(chain(), small_images())
        first, second, _ = walk.units
        assert list(failing_units(walk.model, Example.given(small_images()), [first, shifted(second, "7", "in")])) == [
            "3"
        ]

    def test_one_among_many_is_found(self) -> None:
        walk = traced("cifar_resnet56").walk
        wrong = "layer2.4.conv1"
        units = [shifted(unit, "layer2.4.conv2", "in") if unit.name == wrong else unit for unit in walk.free]
        model = copied(walk.model).eval()
        assert list(failing_units(model, Example.given(example("cifar_resnet56")), units)) == [wrong]

    def test_a_forgotten_reader_is_reported(self) -> None:
        walk = LayerWalk.trace(chain(), small_images())
        first, second, _ = walk.units
        short = replace(first, members=tuple(member for member in first.members if member.module != "3"))
        failures = failing_units(walk.model, Example.given(small_images()), [short, second])
        assert list(failures) == ["0"]
        assert "does not run" in failures["0"]

    def test_batch_norms_that_start_at_zero_hide_nothing(self) -> None:
        model = chain()
        nn.init.zeros_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        walk = LayerWalk.trace(model, small_images())
        assert list(failing_units(model, Example.given(small_images()), [shifted(walk.units[0], "3", "in")])) == ["0"]

    def test_a_branch_that_hardly_contributes_hides_nothing(self) -> None:
        net = body(lambda net, x: x + 1e-7 * net.d(torch.relu(net.c(x))), c=conv(8, 8), d=conv(8, 8))
        walk = LayerWalk.trace(net, small_images())
        wrong = shifted(unit_of(walk, "c"), "d", "in")
        assert list(failing_units(net, Example.given(small_images()), [wrong])) == ["c"]

    def test_an_example_of_zeros_hides_nothing(self) -> None:
        model, zeros = chain(), torch.zeros(1, 3, 8, 8)
        walk = LayerWalk.trace(model, zeros)
        assert len(walk.free) == 2
        assert list(failing_units(model, Example.given(zeros), [shifted(walk.units[0], "3", "in")])) == ["0"]

    def test_proving_leaves_the_network_as_it_is(self) -> None:
        model = chain().eval()
        walk = LayerWalk.trace(model, small_images())
        before = outputs(model, small_images(2, 1))[0]
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        failing_units(model, Example.given(small_images()), [shifted(walk.units[0], "3", "in"), walk.units[1]])
        assert torch.equal(outputs(model, small_images(2, 1))[0], before)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
