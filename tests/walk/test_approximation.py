"""Units whose cut is not exact: protected by default; in an approximate walk they are free, with a measured error."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from zoo import body, conv, random_plan, small_images, unit_of

from prune_env import LayerWalk
from prune_env.common.errors import ModelError
from prune_env.testing.counts import counted_macs, counted_params


def last(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def neighbours(net: nn.Module, images: Tensor) -> Tensor:
    """Attention over channels by a convolution along them (ECA)."""
    pooled = images.mean((2, 3)).unsqueeze(1)
    return images * net.along(pooled).sigmoid().squeeze(1)[:, :, None, None]


class Standardised(nn.Conv2d):
    """A convolution that standardises each filter before it is used."""

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return nn.functional.conv2d(images, weight, self.bias, self.stride, self.padding)


INEXACT: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: body(lambda net, x: last(x, net.n), n=nn.LayerNorm(8)),
    "one group": lambda: body(lambda net, x: net.n(x), n=nn.GroupNorm(1, 8)),
    "attention over channels": lambda: body(neighbours, along=nn.Conv1d(1, 1, 3, padding=1)),
    "attention over positions": lambda: body(
        lambda net, x: x * net.where(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid(),
        where=conv(2, 1),
    ),
    "weight standardisation": lambda: body(lambda net, x: net.s(x), s=Standardised(8, 8, 3, padding=1)),
}


@pytest.mark.parametrize("shape", INEXACT)
def test_by_default_they_are_protected_and_the_reason_says_that_what_stays_would_change(shape: str) -> None:
    unit = unit_of(LayerWalk.trace(INEXACT[shape](), small_images()), "a")
    assert (unit.protected or "").startswith("its cut would change what stays: ")
    assert unit.error is None


@pytest.mark.parametrize("shape", INEXACT)
def test_in_an_approximate_walk_they_are_free_and_their_error_is_measured(shape: str) -> None:
    walk = LayerWalk.trace(INEXACT[shape](), small_images(), approximate=True)
    unit = unit_of(walk, "a")
    assert unit.free
    assert unit.inexact
    assert unit.error is not None
    assert 1e-4 < unit.error < 10
    for seed in range(3):
        plan = random_plan(walk, seed)
        small = plan.apply(walk.model)
        small(small_images())
        assert walk.macs(plan.widths) == counted_macs(small, small_images())
        assert walk.params(plan.widths) == counted_params(small)


def test_exact_units_have_no_error_and_are_proved_as_ever() -> None:
    walk = LayerWalk.trace(INEXACT["layer norm"](), small_images(), approximate=True)
    assert unit_of(walk, "z").error is None
    assert unit_of(walk, "z").inexact is None


def test_slots_of_every_group_of_a_group_norm_can_go_where_whole_groups_need_not() -> None:
    net = body(lambda net, x: net.n(x), n=nn.GroupNorm(2, 8))
    assert unit_of(LayerWalk.trace(net, small_images()), "a").channels == 2
    walk = LayerWalk.trace(net, small_images(), approximate=True)
    assert unit_of(walk, "a").channels == 4
    small = walk.plan({"a": 3}).apply(net)
    assert (small.n.num_groups, small.n.num_channels) == (2, 6)


def test_errors_can_be_measured_on_other_images() -> None:
    walk = LayerWalk.trace(INEXACT["layer norm"](), small_images(), approximate=True)
    other = walk.measured_on(small_images(8, seed=5))
    assert unit_of(other, "a").error != unit_of(walk, "a").error
    assert [unit.name for unit in other.free] == [unit.name for unit in walk.free]


def test_a_walk_that_takes_too_long_says_where_it_was() -> None:
    with pytest.raises(ModelError, match=r"took longer than 1e-06 s; it stopped at .*env\.trace_seconds"):
        LayerWalk.trace(body(lambda _, x: x), small_images(), seconds=1e-6)
