"""Networks whose code decides by sizes, or holds anything under the names of sizes: cut exactly, or protected."""

import threading
from collections import defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import Net, body, conv, mask_difference, random_plan, small_images, unit_of

from prune_env import LayerWalk
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.testing.counts import counted_macs, counted_params

Sizes = namedtuple("Sizes", ["left", "right"])


class Scaled(nn.Conv2d):
    """A convolution with one further number for each channel."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, self.out_channels).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.gain


class Holding(nn.Module):
    """A scale for each channel, beside an attribute or buffer that has nothing to do with channels."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(1, -1, 1, 1))
        self.register_buffer("other", torch.ones(2, 2))
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.gamma


class Halving(nn.Module):
    """Adds both halves of the channels; the sizes are held in some form."""

    def __init__(self, sizes: Any) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, images: Tensor) -> Tensor:
        halves = self.sizes // 2 if isinstance(self.sizes, int) else [int(size) for size in self.sizes]
        left, right = images.split(halves, 1)
        return torch.cat([left + right, left], 1)


class NamedLikeASide(nn.Module):
    """A module with a bare parameter of the name ``out``."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a further scale of a layer": lambda: body(lambda net, x: net.s(x), s=Scaled(8, 8, 3, padding=1)),
    "groups that are modules": lambda: body(lambda net, x: net.h(x), h=Holding(groups=nn.ModuleList([nn.ReLU()]))),
    "groups that are a number": lambda: body(lambda net, x: net.h(x), h=Holding(groups=3)),
    "a grid of numbers": lambda: body(
        lambda net, x: torch.cat(net.h(x).chunk(2, 1), 1), h=Holding(grid=torch.arange(5))
    ),
    "a lock": lambda: body(lambda net, x: net.h(x), h=Holding(lock=threading.Lock())),
    "sizes in a list": lambda: body(lambda net, x: net.h(x), h=Halving([4, 4])),
    "half of a size": lambda: body(lambda net, x: net.h(x), h=Halving(8)),
    "sizes by name": lambda: body(lambda net, x: net.h(x), h=Halving(Sizes(4, 4))),
    "sizes as floats": lambda: body(lambda net, x: net.h(x), h=Halving([4.0, 4.0])),
    "a parameter named like a side": lambda: body(lambda net, x: net.n(x), n=NamedLikeASide()),
    "a threshold by the number of channels": lambda: body(
        lambda _, x: x * (torch.arange(8.0) > x.shape[1] - 3).float(),
    ),
    "as many of the best positions as channels": lambda: body(
        lambda net, x: net.b(x).flatten(2).topk(x.shape[1], 2).values.mean(2)[:, :, None, None].expand(-1, -1, 8, 8),
        b=conv(8, 8),
    ),
}


@pytest.mark.parametrize("shape", NETWORKS)
def test_every_plan_is_exact_in_outputs_and_costs_also_as_the_evaluation_cuts_it(shape: str) -> None:
    walk = LayerWalk.trace(NETWORKS[shape](), small_images())
    assert unit_of(walk, "z").free
    images = small_images(2, 1)
    reshapable = ReshapableNetwork(walk.model, walk.units)
    for seed in range(4):
        plan = random_plan(walk, seed)
        small = plan.apply(walk.model).eval()
        assert mask_difference(walk, plan, images) <= 1e-4
        assert (walk.macs(plan.widths), walk.params(plan.widths)) == (
            counted_macs(small, small_images()),
            counted_params(small),
        )
        with torch.no_grad():
            torch.testing.assert_close(reshapable.cut(plan.kept)(images), small(images))


@pytest.mark.parametrize(
    "name", ["a further scale of a layer", "groups that are modules", "a grid of numbers", "a lock"]
)
def test_what_has_nothing_to_do_with_sizes_protects_nothing(name: str) -> None:
    assert unit_of(LayerWalk.trace(NETWORKS[name](), small_images()), "a").free


@pytest.mark.parametrize("name", ["sizes in a list", "half of a size"])
def test_sizes_that_follow_the_cut_leave_the_channels_free(name: str) -> None:
    assert unit_of(LayerWalk.trace(NETWORKS[name](), small_images()), "a").free


@pytest.mark.parametrize("name", ["a threshold by the number of channels", "as many of the best positions as channels"])
def test_a_decision_by_the_number_of_channels_is_not_repeated_in_the_proof(name: str) -> None:
    assert not unit_of(LayerWalk.trace(NETWORKS[name](), small_images()), "a").free


def test_a_scale_is_computed_in_the_number_type_of_the_layers() -> None:
    walk = LayerWalk.trace(NETWORKS["a lock"](), small_images())
    reshapable = ReshapableNetwork(walk.model, walk.units, torch.bfloat16)
    plan = random_plan(walk, 0)
    small = reshapable.cut(plan.kept)(small_images().bfloat16()).float()
    torch.testing.assert_close(small, plan.apply(walk.model).eval()(small_images()), rtol=0.1, atol=0.1)


class CutsItself(nn.Module):
    """A module with a convolution of its own that says how it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 8
        self.inner = nn.Conv2d(8, 8, 1)

    def keep_inputs(self, kept: Any) -> None:
        self.inner.weight.data = self.inner.weight.data[:, list(kept)]
        self.in_channels = len(kept)

    def keep_outputs(self, kept: Any) -> None:
        self.inner.weight.data, self.inner.bias.data = (
            self.inner.weight.data[list(kept)],
            self.inner.bias.data[list(kept)],
        )
        self.out_channels = len(kept)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


def test_what_a_module_that_cuts_itself_computes_is_counted() -> None:
    walk = LayerWalk.trace(body(lambda net, x: net.o(x), o=CutsItself()), small_images())
    assert walk.macs() == counted_macs(walk.model, small_images())
    assert walk.idle == ()


@pytest.mark.parametrize(
    "given",
    [
        {"img": small_images(), "meta": {"scale": torch.tensor(2.0)}},
        defaultdict(list, {"img": small_images(), "meta": {"scale": torch.tensor(2.0)}}),
    ],
    ids=["nested", "with a default"],
)
def test_mappings_of_any_kind_are_taken(given: Any) -> None:
    net = Net(lambda net, x: net.b(torch.relu(net.a(x["img"])) * x["meta"]["scale"]), a=conv(3, 8), b=conv(8, 4))
    assert [unit.name for unit in LayerWalk.trace(net, given).free] == ["a"]


def test_noise_that_torch_does_not_draw_is_noticed() -> None:
    generator = np.random.default_rng(0)
    net = body(lambda _, x: x + float(generator.normal()))
    walk = LayerWalk.trace(net, small_images())
    assert walk.free == ()
    assert "not deterministic" in (unit_of(walk, "z").protected or "")


def picky(net: Net, images: Tensor) -> Tensor:
    """A network that takes one image with values in [0, 1] only."""
    if len(images) != 1 or images.min() < 0 or images.max() > 1:
        raise ValueError("one image in [0, 1], please")
    return net.b(torch.relu(net.a(images)))


def test_a_network_that_refuses_noise_is_proved_on_the_example() -> None:
    net = Net(picky, a=conv(3, 8), b=conv(8, 4))
    assert [unit.name for unit in LayerWalk.trace(net, torch.rand(1, 3, 8, 8)).free] == ["a"]


def test_a_constant_example_proves_nothing_of_a_network_that_refuses_noise() -> None:
    walk = LayerWalk.trace(Net(picky, a=conv(3, 8), b=conv(8, 4)), torch.zeros(1, 3, 8, 8))
    assert walk.free == ()
    assert "give an example with values" in (unit_of(walk, "a").protected or "")
