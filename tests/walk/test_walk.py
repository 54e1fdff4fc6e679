"""LayerWalk: the units of a network in forward order, what protects them, and plans made from widths and scores."""

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from zoo import (
    CIFAR,
    MODELS,
    Net,
    body,
    chain,
    conv,
    example,
    mask_difference,
    random_plan,
    small_images,
    traced,
    unit_of,
)

from prune_env import LayerWalk
from prune_env.common.errors import ModelError, UserError
from prune_env.common.layers import Convolution
from prune_env.testing.counts import counted_macs

REACH = dict.fromkeys(("resnet50", *CIFAR), 0.85)


@pytest.fixture(scope="module")
def walk() -> LayerWalk:
    """Units: "0" of 8 channels, "3" of 6, and the classifier "7", protected."""
    return LayerWalk.trace(chain(), small_images())


@pytest.mark.parametrize("name", MODELS)
def test_the_free_units_reach_most_of_the_macs(name: str) -> None:
    model, images = traced(name).model, example(name)
    walk = traced(name).walk
    assert walk.reach() >= REACH.get(name, 0.60)
    # Check the walk's number against an independent count on the network cut to single channels.
    smallest = walk.plan({unit.name: 1 for unit in walk.free}).apply(model)
    assert 1 - counted_macs(smallest, images) / counted_macs(model, images) == pytest.approx(walk.reach(), abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_every_protected_unit_says_why(name: str) -> None:
    units = traced(name).walk.units
    assert all(unit.protected.strip() for unit in units if unit.protected is not None)
    assert units[-1].protected == "its channels are the network's output"


@pytest.mark.parametrize("name", MODELS)
def test_members_map_every_unit_channel_to_channels_of_their_own(name: str) -> None:
    walk = traced(name).walk
    modules = dict(walk.model.named_modules())
    claimed: set[tuple[str, str, int]] = set()
    for unit in walk.units:
        for member in unit.members:
            rows, repeat = member.index.shape
            assert rows == unit.channels
            assert repeat >= 1
            assert member.index.dtype == np.int64
            places = {(member.module, member.side, place) for place in member.index.ravel().tolist()}
            assert len(places) == member.index.size, f"{unit.name} claims a channel of {member.module} twice"
            assert not places & claimed, f"{unit.name} claims channels of {member.module} that another unit has"
            claimed |= places
            assert member.index.min() >= 0
            assert member.index.max() < size_of(modules[member.module], member.side)


def size_of(module: nn.Module, side: str) -> int:
    if side not in ("in", "out"):
        return max(getattr(module, side).shape)
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    return module.in_channels if side == "in" else module.out_channels


@pytest.mark.parametrize("name", MODELS)
def test_units_are_named_after_their_first_convolution_in_forward_order(name: str) -> None:
    walk = traced(name).walk
    order = forward_order(walk.model, example(name))
    firsts = []
    for unit in walk.units:
        producers = [member.module for member in unit.members if member.side == "out" and member.module in order]
        assert unit.layer == min(producers, key=order.index)
        assert unit.name.partition("#")[0] == unit.layer
        firsts.append(order.index(unit.layer))
    assert firsts == sorted(firsts)
    assert len({unit.name for unit in walk.units}) == len(walk.units)


def forward_order(model: nn.Module, images: torch.Tensor) -> list[str]:
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in model.named_modules()
        if isinstance(module, (*Convolution, nn.Linear))
    ]
    was = {module: module.training for module in model.modules()}
    with torch.no_grad():
        model.eval()(images)
    for module, training in was.items():
        module.training = training
    for handle in handles:
        handle.remove()
    return order


@pytest.mark.parametrize("name", MODELS)
def test_every_convolution_and_linear_layer_writes_the_channels_of_some_unit(name: str) -> None:
    walk = traced(name).walk
    written: dict[str, int] = {}
    for unit in walk.units:
        for member in unit.members:
            if member.side == "out":
                written[member.module] = written.get(member.module, 0) + member.index.size
    for module_name, module in walk.model.named_modules():
        if isinstance(module, (*Convolution, nn.Linear)):
            assert written[module_name] == size_of(module, "out")


@pytest.mark.slow
def test_tracing_resnet50_at_full_size_takes_less_than_30_seconds() -> None:
    model = torchvision.models.resnet50(weights=None)
    start = time.perf_counter()
    walk = LayerWalk.trace(model, torch.zeros(1, 3, 224, 224))
    assert time.perf_counter() - start < 30
    assert walk.macs() == 4_089_184_256
    assert walk.params() == 25_557_032
    assert len(walk.free) == 37


def test_costs_are_for_one_image_whatever_the_batch_of_the_example() -> None:
    one, many = (LayerWalk.trace(chain(), small_images(batch)) for batch in (1, 5))
    assert one.macs({"0": 3}) == many.macs({"0": 3})


def test_dead_layers_are_listed_and_stay_dense() -> None:
    walk = LayerWalk.trace(body(lambda _, x: x, idle=conv(8, 8)), small_images())
    assert walk.idle == ("idle",)
    assert walk.plan({"a": 3}).apply(walk.model).idle.in_channels == 8


class TestProtect:
    def test_a_named_module_protects_the_unit_that_it_is_part_of(self) -> None:
        walk = LayerWalk.trace(chain(), small_images(), protect={"1": "its statistics are frozen"})
        assert unit_of(walk, "0").protected == "its statistics are frozen"
        assert [unit.name for unit in walk.free] == ["3"]

    def test_with_in_it_protects_the_units_that_the_module_reads(self) -> None:
        walk = LayerWalk.trace(chain(), small_images(), protect={"3:in": "the first layer stays"})
        assert [unit.name for unit in walk.free] == ["3"]

    def test_with_in_it_protects_every_branch_of_a_concat(self) -> None:
        net = body(lambda net, x: torch.cat([net.l(x), net.r(x)], 1), 7, l=conv(8, 5), r=conv(8, 2))
        walk = LayerWalk.trace(net, small_images(), protect={"z:in": "why"})
        assert [unit.name for unit in walk.free] == ["a", "z"]

    def test_a_layer_that_reads_the_image_has_nothing_to_protect_on_its_inputs(self) -> None:
        walk = LayerWalk.trace(chain(), small_images(), protect={"0:in": "why"})
        assert [unit.name for unit in walk.free] == ["0", "3"]

    @pytest.mark.parametrize("given_name", ["layer1.0.conv3", "layer1.0.conv11", "layer1.0.conv1:inn"])
    def test_an_unknown_name_is_refused_with_the_nearest(self, given_name: str) -> None:
        with pytest.raises(ModelError, match=r"no module 'layer1\.0\.conv.*did you mean 'layer1\.0\.conv1'"):
            LayerWalk.trace(traced("cifar_resnet20").model, example("cifar_resnet20"), protect={given_name: "why"})

    @pytest.mark.parametrize("given_name", ["layer1", "layer1.0.relu1", "layer1:in"])
    def test_a_module_without_channels_of_its_own_is_refused_and_not_passed_over(self, given_name: str) -> None:
        with pytest.raises(ModelError, match="protect: there is no module 'layer1"):
            LayerWalk.trace(traced("cifar_resnet20").model, example("cifar_resnet20"), protect={given_name: "why"})

    def test_the_first_reason_stays(self) -> None:
        walk = LayerWalk.trace(chain(), small_images(), protect={"0": "first", "1": "second", "7": "third"})
        assert unit_of(walk, "0").protected == "first"
        assert unit_of(walk, "7").protected == "its channels are the network's output"

    def test_a_traced_walk_can_be_protected_further_without_changing(self, walk: LayerWalk) -> None:
        more = walk.protecting({"0": "sensitive", "7": "sensitive"})
        assert [unit.name for unit in more.free] == ["3"]
        assert unit_of(more, "0").protected == "sensitive"
        assert unit_of(more, "7").protected == "its channels are the network's output"
        assert [unit.name for unit in walk.free] == ["0", "3"]
        with pytest.raises(UserError, match="'0': width 4 given, but the unit is protected: sensitive"):
            more.macs({"0": 4})


class TestNetworksThatCannotBeTraced:
    def test_one_that_does_not_run_on_the_input_is_refused_with_its_shape(self) -> None:
        with pytest.raises(ModelError, match=r"does not run on an input of shape \[1, 4, 8, 8\]"):
            LayerWalk.trace(chain(), torch.zeros(1, 4, 8, 8))

    @pytest.mark.parametrize("error", [KeyError("x"), AttributeError("no x"), AssertionError(), ZeroDivisionError("x")])
    def test_one_whose_forward_raises_anything_is_refused_in_words(self, error: Exception) -> None:
        def fail(_net: Net, _images: torch.Tensor) -> torch.Tensor:
            raise error

        reason = re.escape(f"{type(error).__name__}: {error}")
        with pytest.raises(ModelError, match=rf"does not run on an input of shape \[1, 3, 12, 12\]: {reason}"):
            LayerWalk.trace(Net(fail, a=conv(3, 4)), torch.zeros(1, 3, 12, 12))

    def test_one_whose_forward_is_interrupted_is_not_taken_for_one_that_does_not_run(self) -> None:
        def interrupt(_net: Net, _images: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            LayerWalk.trace(Net(interrupt, a=conv(3, 4)), small_images())

    def test_one_with_lazy_layers_is_refused_with_the_way_out(self) -> None:
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
        with pytest.raises(ModelError, match=r"'0\.weight' has no shape yet.*Run the network once.*its channels"):
            LayerWalk.trace(model, small_images())
        model(small_images())
        assert [unit.channels for unit in LayerWalk.trace(model, small_images()).units] == [4, 2]

    def test_one_without_convolutions_is_refused(self) -> None:
        with pytest.raises(ModelError, match="calls no convolution or linear layer"):
            LayerWalk.trace(nn.Sequential(nn.ReLU(), nn.Flatten()), small_images())

    @pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.orthogonal, spectral_norm])
    def test_of_one_that_computes_a_weight_from_others_what_the_layer_touches_is_protected_with_the_way_out(
        self, make: Callable[[nn.Module], nn.Module]
    ) -> None:
        model = chain()
        make(model[3])
        walk = LayerWalk.trace(model, small_images())
        assert walk.free == ()
        for unit in walk.units[:2]:
            assert re.search(r"'3' computes its weight.*prune\.remove.*remove_parametrizations", unit.protected)


@pytest.mark.parametrize("model", [nn.Sequential(conv(3, 4)), conv(3, 4)], ids=["in a sequence", "bare"])
def test_a_network_of_a_single_convolution_has_one_unit_and_it_is_protected(model: nn.Module) -> None:
    walk = LayerWalk.trace(model, small_images())
    assert [(unit.channels, unit.protected) for unit in walk.units] == [(4, "its channels are the network's output")]
    assert walk.reach() == 0.0


def test_blocks_that_hold_sizes_of_their_own_are_no_convolutions() -> None:
    net = body(lambda _, x: x)
    net.in_channels, net.out_channels, net.kernel_size = 3, 4, 3
    outer = nn.Sequential(net)
    assert LayerWalk.trace(outer, small_images()).plan({"0.a": 3}).apply(outer)[0].a.out_channels == 3


class TestWidths:
    @pytest.mark.parametrize("width", [0, -1, 9, 2.5])
    def test_out_of_range_they_are_refused_with_the_range(self, walk: LayerWalk, width: float) -> None:
        for ask in (walk.macs, walk.params, walk.plan):
            with pytest.raises(UserError, match=rf"Unit '0': width {re.escape(str(width))} given; allowed are 1 to 8"):
                ask({"0": width})

    def test_of_an_unknown_unit_they_are_refused_with_the_nearest(self) -> None:
        walk = traced("cifar_resnet20").walk
        for ask in (walk.macs, walk.params, walk.plan):
            with pytest.raises(UserError, match=r"no unit 'layer2\.0\.conv7': did you mean 'layer2\.0\.conv"):
                ask({"layer2.0.conv7": 3})

    def test_of_a_protected_unit_they_are_refused_with_the_reason(self, walk: LayerWalk) -> None:
        with pytest.raises(UserError, match=r"Unit '7': width 4 given, but .*the network's output.*or give 5"):
            walk.macs({"7": 4})
        assert walk.macs({"7": 5}) == walk.macs()

    def test_of_one_channel_are_not_taken_for_depthwise(self) -> None:
        net = body(lambda net, x: net.n(net.m(x)), m=conv(8, 1), n=conv(1, 8))
        walk = LayerWalk.trace(net, small_images())
        assert unit_of(walk, "m").protected == "it has a single channel that can only be kept"
        assert {unit.name: unit.channels for unit in walk.free} == {"a": 8, "n": 8, "z": 6}
        assert walk.plan({"a": 2, "n": 3}).apply(net).n.weight.shape == (3, 1, 3, 3)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_widths_asked_for_are_the_widths_that_the_cut_network_has(data: st.DataObject) -> None:
    channels = [data.draw(st.integers(2, 12), label="channels") for _ in range(3)]
    widths = [data.draw(st.integers(1, count), label="width") for count in channels]
    first, second, third = channels
    net = body(
        lambda net, x: net.d(torch.relu(net.c(x))),
        first=first,
        channels=third,
        c=conv(first, second),
        d=conv(second, third),
    )
    plan = LayerWalk.trace(net, small_images()).plan(dict(zip("acd", widths, strict=True)))
    assert [plan.widths[name] for name in "acd"] == widths
    small = plan.apply(net)
    assert [small.a.out_channels, small.c.out_channels, small.d.out_channels] == widths
    assert [small.c.in_channels, small.d.in_channels, small.z.in_channels] == widths


class TestScores:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=8), st.integers(1, 8))
    def test_the_best_channels_stay(self, scores: list[float], width: int) -> None:
        kept = _CHAIN.plan({"0": width}, {"0": np.array(scores)}).kept["0"]
        assert len(kept) == width
        assert list(kept) == sorted(set(kept))
        gone = set(range(8)) - set(kept)
        assert all(scores[stays] >= scores[goes] for stays in kept for goes in gone)

    def test_equal_scores_keep_the_lower_channel(self, walk: LayerWalk) -> None:
        scores = {"0": np.array([1.0, 2, 1, 2, 1, 2, 1, 1]), "3": np.zeros(6)}
        assert walk.plan({"0": 4, "3": 2}, scores).kept == {"0": (0, 1, 3, 5), "3": (0, 1), "7": (0, 1, 2, 3, 4)}

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_that_are_not_finite_are_refused_with_the_unit(self, walk: LayerWalk, value: float) -> None:
        scores = {"0": np.ones(8), "3": np.array([1, 2, value, 4, 5, 6])}
        with pytest.raises(UserError, match="Unit '3': a score is not a finite number"):
            walk.plan({"3": 2}, scores)

    @pytest.mark.parametrize("scores", [{}, {"3": np.ones(5)}, {"3": np.ones(7)}])
    def test_that_are_too_few_or_too_many_are_refused_with_the_unit(self, walk: LayerWalk, scores: dict) -> None:
        with pytest.raises(UserError, match="Unit '3': one score for each of its 6 channels is needed"):
            walk.plan({"3": 2}, scores)

    def test_are_needed_only_for_units_that_are_cut(self, walk: LayerWalk) -> None:
        assert walk.plan({"3": 1}, {"3": np.arange(6.0)}).kept["3"] == (5,)

    def test_are_l1_norms_where_none_are_given(self) -> None:
        model = chain()
        with torch.no_grad():
            for channel, size in enumerate([3, 1, 4, 1, 5, 9, 2, 6]):
                model[0].weight[channel] = size
        walk = LayerWalk.trace(model, small_images())
        assert walk.plan({"0": 3}).kept["0"] == (4, 5, 7)

    def test_l1_norms_are_summed_over_all_that_writes_the_unit(self) -> None:
        net = body(lambda net, x: x + net.c(x), c=conv(8, 8))
        with torch.no_grad():
            for layer, sizes in ((net.a, [9, 0, 0, 5, 0, 0, 0, 0]), (net.c, [0, 0, 8, 5, 0, 0, 0, 0])):
                for channel, size in enumerate(sizes):
                    layer.weight[channel] = size / layer.weight[0].numel()
        assert LayerWalk.trace(net, small_images()).plan({"a": 1}).kept["a"] == (3,)


_CHAIN = LayerWalk.trace(chain(), small_images())


def test_a_shuffled_network_keeps_what_the_shuffle_does_not_touch_free() -> None:
    walk = traced("shufflenet_v2_x1_0").walk
    assert {unit.protected for unit in walk.units} == {
        None,
        "it has a single channel that can only be kept",
        "its channels are the network's output",
    }
    assert len(walk.free) == 20
    assert len(walk.units) == 23


@pytest.mark.parametrize("twice", [False, True])
def test_a_gate_of_half_the_channels_ties_both_halves(twice: bool) -> None:
    def middle(net: Net, images: torch.Tensor) -> torch.Tensor:
        gate, rest = images.chunk(2, 1)
        gated = gate * torch.sigmoid(rest)
        both = torch.cat([gated, -gated], 1)
        return net.h(images) + (torch.cat([both, both], 1) if twice else both)

    channels = 16 if twice else 8
    walk = LayerWalk.trace(body(middle, channels, h=conv(8, channels)), small_images())
    assert [(unit.name, unit.channels) for unit in walk.free] == [("a", 4), ("z", 6)]
    for seed in range(3):
        assert mask_difference(walk, random_plan(walk, seed), small_images(2, seed + 1)) <= 1e-4


def test_a_network_in_which_nothing_is_traced_is_still_a_walk_of_protected_units() -> None:
    net = Net(lambda net, x: net.c(x.permute(0, 1, 3, 2)) * net.p, c=conv(3, 4), p=nn.Parameter(torch.ones(4, 1, 1)))
    walk = LayerWalk.trace(net, small_images())
    assert walk.free == ()
    assert all(unit.protected for unit in walk.units)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_network_can_be_traced_where_gradients_are_switched_off(context: Any) -> None:
    with context():
        walk = LayerWalk.trace(nn.Sequential(conv(3, 8), conv(8, 4)), torch.randn(1, 3, 8, 8))
    assert [unit.name for unit in walk.free] == ["0"]
