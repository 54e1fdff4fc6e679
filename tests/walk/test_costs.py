"""Closed-form MACs and params equal torch's count on the cut network exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zoo import (
    MODELS,
    body,
    chain,
    conv,
    example,
    random_plan,
    small_images,
    traced,
)

from prune_env import LayerWalk
from prune_env.granularity.group import GroupEdit
from prune_env.models import build_model
from prune_env.testing.counts import counted_macs, counted_params


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_costs_at_random_widths_equal_a_count_on_the_cut_network(name: str, seed: int) -> None:
    walk = traced(name).walk
    plan = random_plan(walk, seed)
    small = plan.apply(walk.model)
    assert walk.macs(plan.widths) == counted_macs(small, example(name))
    assert walk.params(plan.widths) == counted_params(small)
    assert (plan.costs.macs, plan.costs.params) == (walk.macs(plan.widths), walk.params(plan.widths))


@pytest.mark.parametrize("name", MODELS)
def test_dense_costs_equal_a_count_on_the_dense_network(name: str) -> None:
    walk = traced(name).walk
    assert walk.macs() == counted_macs(walk.model, example(name))
    assert walk.params() == counted_params(walk.model)
    plan = walk.plan({})
    assert (plan.costs.dense_macs, plan.costs.dense_params) == (walk.macs(), walk.params())


@pytest.mark.parametrize(
    ("depth", "macs", "params"),
    [(20, 40_551_040, 269_722), (56, 125_485_696, 853_018), (110, 252_887_680, 1_727_962)],
)
def test_cifar_resnets_have_the_published_costs(depth: int, macs: int, params: int) -> None:
    model, images = build_model(f"cifar_resnet{depth}", 10), torch.randn(1, 3, 32, 32)
    walk = LayerWalk.trace(model, images)
    assert (walk.macs(), walk.params()) == (macs, params)
    assert (counted_macs(model, images), counted_params(model)) == (macs, params)


_DEPTHWISE = LayerWalk.trace(
    body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1)), small_images()
)


@settings(deadline=None, max_examples=60)
@given(a=st.integers(1, 8), p=st.integers(1, 10), z=st.integers(1, 6))
def test_every_combination_of_widths_is_exact(a: int, p: int, z: int) -> None:
    widths = {"a": a, "p": p, "z": z}
    small = _DEPTHWISE.plan(widths).apply(_DEPTHWISE.model)
    assert _DEPTHWISE.macs(widths) == counted_macs(small, small_images())
    assert _DEPTHWISE.params(widths) == counted_params(small)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_costs_fall_with_every_channel_that_goes(data: st.DataObject) -> None:
    widths = {unit.name: data.draw(st.integers(2, unit.channels)) for unit in _DEPTHWISE.free}
    name = data.draw(st.sampled_from(sorted(widths)))
    narrower = {**widths, name: widths[name] - 1}
    assert _DEPTHWISE.macs(narrower) < _DEPTHWISE.macs(widths)
    assert _DEPTHWISE.params(narrower) < _DEPTHWISE.params(widths)


def grouped_chain(groups: int) -> nn.Sequential:
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12, groups=groups), nn.ReLU(), conv(12, 4, 1))


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (8, 2), (8, 4), (4, 2), (6, 3), (2, 2)])
def test_costs_at_a_group_count_are_those_of_the_grouped_convolution(width: int, groups: int) -> None:
    walk = LayerWalk.trace(grouped_chain(1), small_images())
    really = nn.Sequential(conv(3, width), nn.ReLU(), conv(width, 12, groups=groups), nn.ReLU(), conv(12, 4, 1))
    shares = np.arange(width).reshape(groups, -1).tolist()
    edit = GroupEdit(inputs=shares, filters=np.arange(12).reshape(groups, -1).tolist())
    assert walk.macs({"0": width}, {"2": edit}) == counted_macs(really, small_images())
    assert walk.params({"0": width}, {"2": edit}) == counted_params(really)


def test_a_grouped_convolution_keeps_its_count_where_slots_are_cut() -> None:
    walk = LayerWalk.trace(grouped_chain(4), small_images())
    assert {unit.name: unit.channels for unit in walk.free} == {"0": 2, "2": 3}
    small = walk.plan({"0": 1, "2": 2}).apply(walk.model)
    assert (small[2].groups, small[2].in_channels, small[2].out_channels) == (4, 4, 8)
    assert walk.macs({"0": 1, "2": 2}) == counted_macs(small, small_images())


def test_a_module_called_twice_costs_its_macs_twice_and_its_params_once() -> None:
    net = body(lambda net, x: net.s(torch.relu(net.s(x))), s=conv(8, 8))
    once = LayerWalk.trace(body(lambda net, x: net.s(x), s=conv(8, 8)), small_images())
    twice = LayerWalk.trace(net, small_images())
    assert twice.macs() - once.macs() == 8 * 8 * 9 * 64
    assert twice.params() == once.params()


def test_positions_folded_into_the_batch_are_counted() -> None:
    net = body(
        lambda net, x: net.t(x.permute(0, 2, 3, 1).reshape(-1, 8)).view(len(x), 8, 8, 8).permute(0, 3, 1, 2),
        t=nn.Linear(8, 8),
    )
    for batch in (1, 3):
        walk = LayerWalk.trace(net, small_images(batch))
        assert walk.macs() == counted_macs(net, small_images())


def test_reach_is_the_share_that_cutting_to_the_least_widths_takes_away() -> None:
    walk = LayerWalk.trace(chain(), small_images())
    for metric, cost in (("macs", walk.macs), ("params", walk.params)):
        assert walk.reach(metric) == 1 - cost({"0": 1, "3": 1}) / cost()
        assert walk.reach(metric, {"0": 4, "3": 3}) == 1 - cost({"0": 4, "3": 3}) / cost()
