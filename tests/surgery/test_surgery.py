"""Applying a plan: the smaller network and the dense network with zeroed cut channels compute the same outputs."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import (
    MODELS,
    Net,
    body,
    build,
    chain,
    channels_zeroed,
    conv,
    example,
    imprint,
    mask_difference,
    outputs,
    random_plan,
    relative_difference,
    small_images,
    traced,
    unit_of,
)

from prune_env import LayerWalk, PruningPlan
from prune_env.common.layers import Convolution
from prune_env.testing.counts import counted_macs, counted_params

TOLERANCE = 1e-4


@pytest.mark.parametrize("least", [0.5, 0.0], ids=["half and more", "any width"])
@pytest.mark.parametrize("name", MODELS)
def test_a_cut_network_computes_what_the_dense_one_does_with_the_cut_channels_zeroed(name: str, least: float) -> None:
    walk, images = traced(name).walk, example(name, batch=2, seed=1)
    plan = random_plan(walk, seed=int(10 * least) + 1, least=least)
    with channels_zeroed(walk.model, walk.units, plan.kept):
        masked = outputs(walk.model, images)
    assert relative_difference(masked, outputs(walk.model, images)) > 1e-3, "the mask does nothing"
    assert relative_difference(outputs(plan.apply(walk.model), images), masked) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_every_unit_can_be_cut_to_a_single_channel(name: str) -> None:
    walk = traced(name).walk
    plan = walk.plan({unit.name: 1 for unit in walk.free})
    assert mask_difference(walk, plan, example(name, batch=2, seed=1)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_apply_leaves_the_users_network_and_its_modes_as_they_are(name: str) -> None:
    model, walk, before = (traced(name).model, traced(name).walk, traced(name).before)
    assert imprint(model) == before, "tracing changed the network"
    small = imprint(random_plan(walk, seed=3).apply(model))
    assert imprint(model) == before, "applying changed the network"
    assert small.training == before.training
    assert small.requires_grad == before.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_module_of_a_cut_network_says_the_sizes_that_its_tensors_have(name: str) -> None:
    walk = traced(name).walk
    for module_name, module in random_plan(walk, seed=4).apply(walk.model).named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features), module_name
        elif isinstance(module, Convolution):
            slots = module.in_channels // module.groups
            assert module.weight.shape[:2] == (module.out_channels, slots), module_name
            assert module.in_channels % module.groups == module.out_channels % module.groups == 0, module_name
        elif isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert len(tensor) == module.num_features, module_name


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet20", "shufflenet_v2_x1_0"])
def test_a_dense_plan_gives_the_dense_network(name: str) -> None:
    walk = traced(name).walk
    copied = walk.plan({}).apply(walk.model)
    assert copied is not walk.model
    assert imprint(copied) == traced(name).before


def test_a_cut_network_shares_no_memory_with_the_dense_one() -> None:
    model = chain()
    walk = LayerWalk.trace(model, small_images())
    before = imprint(model)
    small = walk.plan({"0": 5}).apply(model)
    with torch.no_grad():
        for tensor in (*small.parameters(), *small.buffers()):
            tensor.zero_()
    assert imprint(model) == before


def test_a_cut_network_can_be_trained() -> None:
    model = chain().train()
    small = LayerWalk.trace(model, small_images()).plan({"0": 5, "3": 2}).apply(model)
    before = copy.deepcopy(small.state_dict())
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    small(small_images(4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    optimiser.step()
    changed = [name for name, tensor in small.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == list(before)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "cifar_resnet20"])
def test_a_plan_fits_other_weights_of_the_same_network(name: str) -> None:
    walk, images = traced(name).walk, example(name, batch=2, seed=1)
    other = build(name, seed=1)
    plan = random_plan(walk, seed=5, least=0.3)
    with channels_zeroed(other, walk.units, plan.kept):
        masked = outputs(other, images)
    assert relative_difference(outputs(plan.apply(other), images), masked) <= TOLERANCE


def test_applying_a_plan_to_two_copies_gives_equal_networks() -> None:
    walk = traced("mobilenet_v3_small").walk
    plan = random_plan(walk, seed=6)
    first, second = (plan.apply(copy.deepcopy(walk.model)).state_dict() for _ in range(2))
    assert list(first) == list(second)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_kept_channels_are_those_that_the_plan_names() -> None:
    model = chain()
    walk = LayerWalk.trace(model, small_images())
    scores = {"0": np.array([0, 9, 0, 8, 0, 7, 0, 0.0])}
    small = walk.plan({"0": 3}, scores).apply(model)
    assert torch.equal(small[0].weight, model[0].weight[[1, 3, 5]])
    assert torch.equal(small[1].running_var, model[1].running_var[[1, 3, 5]])
    assert torch.equal(small[3].weight, model[3].weight[:, [1, 3, 5]])
    assert torch.equal(small[7].weight, model[7].weight)


def test_float64_and_frozen_weights_stay_so() -> None:
    model = chain().double()
    model[3].weight.requires_grad_(False)
    small = LayerWalk.trace(model, small_images().double()).plan({"0": 5}).apply(model)
    assert {tensor.dtype for tensor in small.parameters()} == {torch.float64}
    assert [name for name, tensor in small.named_parameters() if not tensor.requires_grad] == ["3.weight"]


def test_cutting_a_depthwise_unit_to_one_channel_leaves_an_ordinary_convolution() -> None:
    net = body(lambda net, x: net.d(x), d=conv(8, 8, groups=8))
    small = LayerWalk.trace(net, small_images()).plan({"a": 1}).apply(net)
    assert (small.d.groups, small.d.in_channels, small.d.out_channels) == (1, 1, 1)


CUTTABLE: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "plain chain": (chain, {"0": 8, "3": 6}),
    "residual add": (lambda: body(lambda net, x: x + net.c(x), c=conv(8, 8)), {"a": 8, "z": 6}),
    "concat": (
        lambda: body(lambda net, x: torch.cat([net.l(x), x, net.r(x)], 1), 16, l=conv(8, 5), r=conv(8, 3)),
        {"a": 8, "l": 5, "r": 3, "z": 6},
    ),
    "concat with itself": (lambda: body(lambda _, x: torch.cat([x, x], 1), 16), {"a": 8, "z": 6}),
    "depthwise": (lambda: body(lambda net, x: net.d(x), d=conv(8, 8, groups=8)), {"a": 8, "z": 6}),
    "grouped, the same slots of every group": (
        lambda: body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=2)),
        {"a": 4, "g": 6, "z": 6},
    ),
    "grouped twice, with different counts": (
        lambda: body(lambda net, x: net.h(net.g(x)), 8, g=conv(8, 12, groups=2), h=conv(12, 8, groups=4)),
        {"a": 4, "g": 3, "h": 2, "z": 6},
    ),
    "depthwise with multiplier 2": (
        lambda: body(lambda net, x: net.d(x), 16, d=conv(8, 16, groups=8)),
        {"a": 8, "z": 6},
    ),
    "as many groups as half the channels": (
        lambda: body(lambda net, x: net.g(x), g=conv(8, 8, groups=4)),
        {"a": 2, "g": 2, "z": 6},
    ),
    "squeeze and excite": (
        lambda: body(
            lambda net, x: x * net.up(torch.relu(net.down(x.mean((2, 3), keepdim=True)))).sigmoid(),
            down=conv(8, 4, 1),
            up=conv(4, 8, 1),
        ),
        {"a": 8, "down": 4, "z": 6},
    ),
    "squeeze and excite with linear layers": (
        lambda: body(
            lambda net, x: x * net.up(torch.relu(net.down(x.mean((2, 3))))).sigmoid()[:, :, None, None],
            down=nn.Linear(8, 4),
            up=nn.Linear(4, 8),
        ),
        {"a": 8, "down": 4, "z": 6},
    ),
    "a convolution used twice": (
        lambda: body(lambda net, x: net.s(torch.relu(net.s(x))), s=conv(8, 8)),
        {"a": 8, "z": 6},
    ),
    "a convolution used twice, side by side": (
        lambda: body(lambda net, x: net.s(x) + net.s(net.o(x)), s=conv(8, 8), o=conv(8, 8)),
        {"a": 8, "s": 8, "z": 6},
    ),
    "a batch norm used twice": (
        lambda: body(lambda net, x: net.b(x) + net.b(net.o(x)), b=nn.BatchNorm2d(8), o=conv(8, 8)),
        {"a": 8, "z": 6},
    ),
    "batch norm without scale": (
        lambda: body(lambda net, x: net.b(x), b=nn.BatchNorm2d(8, affine=False)),
        {"a": 8, "z": 6},
    ),
    "one PReLU slope a channel": (
        lambda: body(lambda net, x: net.p(x - 1), p=nn.PReLU(8)),
        {"a": 8, "z": 6},
    ),
    "one PReLU slope for all": (lambda: body(lambda net, x: net.p(x - 1), p=nn.PReLU()), {"a": 8, "z": 6}),
    "one-dimensional convolution": (
        lambda: body(lambda net, x: net.c(x.flatten(2))[:, :, None], c=nn.Conv1d(8, 7, 3, padding=1), channels=7),
        {"a": 8, "c": 7, "z": 6},
    ),
    "a stem of one input channel": (
        lambda: body(lambda net, x: net.c(x.mean(1, keepdim=True)), 4, c=conv(1, 4)),
        {"c": 4, "z": 6},
    ),
    "resizing": (lambda: body(lambda _, x: F.interpolate(x, scale_factor=2)), {"a": 8, "z": 6}),
    "a dead branch": (lambda: body(lambda _, x: x, idle=conv(8, 8)), {"a": 8, "z": 6}),
}


@pytest.mark.parametrize("shape", CUTTABLE)
def test_what_can_be_cut_is_free_and_cut_exactly(shape: str) -> None:
    network, free = CUTTABLE[shape]
    walk = LayerWalk.trace(network(), small_images())
    assert {unit.name: unit.channels for unit in walk.free} == free
    for seed in range(4):
        plan = random_plan(walk, seed)
        small = plan.apply(walk.model)
        assert mask_difference(walk, plan, small_images(2, seed + 1)) <= TOLERANCE
        widths = plan.widths
        assert (counted_macs(small, small_images()), counted_params(small)) == (walk.macs(widths), walk.params(widths))


def test_a_flatten_gives_each_channel_as_many_places_as_it_has_pixels() -> None:
    walk = LayerWalk.trace(chain(), small_images())
    reader = next(member for member in unit_of(walk, "3").members if member.module == "7")
    assert reader.side == "in"
    assert np.array_equal(reader.index, np.arange(6 * 16).reshape(6, 16))


def test_a_concat_puts_each_unit_at_its_own_offset() -> None:
    walk = LayerWalk.trace(CUTTABLE["concat"][0](), small_images())
    places = {
        unit.name: member.index.ravel().tolist()
        for unit in walk.free
        for member in unit.members
        if (member.module, member.side) == ("z", "in")
    }
    assert places == {"l": list(range(5)), "a": list(range(5, 13)), "r": list(range(13, 16))}


def test_streams_of_our_own_padded_shortcut_keep_different_channels_on_either_side() -> None:
    walk = traced("cifar_resnet20").walk
    scores = {unit.name: np.random.default_rng(7).random(unit.channels) for unit in walk.units}
    plan = walk.plan({"conv1": 5, "layer2.0.conv2": 11}, scores)
    small = plan.apply(walk.model)
    assert (small.layer2[0].shortcut.in_channels, small.layer2[0].shortcut.out_channels) == (5, 11)
    assert mask_difference(walk, plan, example("cifar_resnet20", 2, 1)) <= TOLERANCE


def test_a_network_may_return_a_tree_of_tensors() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: {"logits": [net.b(net.a(x).relu())], "auxiliary": (net.c(net.a(x)),)},
        a=conv(3, 8),
        b=conv(8, 3),
        c=conv(8, 2),
    )
    walk = LayerWalk.trace(net, small_images())
    assert [unit.name for unit in walk.free] == ["a"]
    for seed in range(3):
        assert mask_difference(walk, random_plan(walk, seed), small_images(2, 1)) <= TOLERANCE


def test_a_plan_keeps_its_meaning_over_a_file(tmp_path: Path) -> None:
    walk = traced("googlenet").walk
    plan = random_plan(walk, seed=8)
    plan.save(tmp_path / "plan.json")
    first = plan.apply(walk.model).state_dict()
    second = PruningPlan.load(tmp_path / "plan.json").apply(walk.model).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
