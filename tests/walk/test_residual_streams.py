"""Residual streams: units that two or more layers write by addition, and nothing else that couples layers."""

import pytest
import torch
from torch import nn
from zoo import Net, body, build, conv, example, small_images

from prune_env.models import build_model
from prune_env.walk import LayerWalk
from prune_env.walk.residual_streams import residual_streams

CIFAR = [20, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (32, 44, 56, 110))]


def streams_of(net: Net) -> dict[str, int]:
    images = small_images()
    return residual_streams(net, LayerWalk.trace(net, images).units, images)


@pytest.mark.parametrize("depth", CIFAR)
def test_the_streams_of_the_cifar_resnets_are_the_three_of_the_stages(depth: int) -> None:
    model, images = build_model(f"cifar_resnet{depth}", 10).eval(), torch.randn(1, 3, 32, 32)
    blocks = (depth - 2) // 6
    found = residual_streams(model, LayerWalk.trace(model, images).units, images)
    # The first convolution writes the first stream too; zero-padding shortcuts write nothing of their own.
    assert found == {"conv1": blocks + 1, "layer2.0.conv2": blocks, "layer3.0.conv2": blocks}


def test_the_streams_of_the_digits_network_have_projections_among_their_layers() -> None:
    model, images = build_model("digits_resnet", 10, in_channels=1).eval(), torch.randn(1, 1, 8, 8)
    found = residual_streams(model, LayerWalk.trace(model, images).units, images)
    assert found == {"conv1": 4, "layer2.0.conv2": 4, "layer3.0.conv2": 4}


def test_the_streams_of_mobilenet_are_the_outputs_of_stages_of_two_or_more_blocks() -> None:
    model, images = build_model("cifar_mobilenet_v2", 10).eval(), torch.randn(1, 3, 32, 32)
    found = residual_streams(model, LayerWalk.trace(model, images).units, images)
    # Stages of 1, 2, 3, 4, 3, 3 and 1 blocks: every block but a stage's first adds to the stage's stream.
    assert list(found.values()) == [2, 3, 4, 3, 3]
    assert all(name.endswith("project.conv") for name in found)


@pytest.mark.parametrize("name", ["cifar_vgg16_bn", "cifar_mobilenet_v1"])
def test_a_network_without_additions_has_no_stream(name: str) -> None:
    model, images = build_model(name, 10).eval(), torch.randn(1, 3, 32, 32)
    assert residual_streams(model, LayerWalk.trace(model, images).units, images) == {}


def test_a_gate_that_is_multiplied_makes_no_stream() -> None:
    net = body(lambda net, x: net.b(x) * torch.sigmoid(net.c(x)), b=conv(8, 8), c=conv(8, 8))
    assert streams_of(net) == {}


def test_a_gated_map_that_is_added_makes_a_stream() -> None:
    net = body(lambda net, x: net.d(x) + net.b(x) * torch.sigmoid(net.c(x)), b=conv(8, 8), c=conv(8, 8), d=conv(8, 8))
    assert streams_of(net) == {"d": 3}


def test_a_map_added_to_itself_makes_no_stream() -> None:
    net = body(lambda net, x: (y := net.b(x)) + torch.relu(y), b=conv(8, 8))
    assert streams_of(net) == {}


def test_a_depthwise_convolution_passes_a_stream_on() -> None:
    net = body(lambda net, x: (y := net.b(x)) + net.d(y), b=conv(8, 8), d=conv(8, 8, groups=8))
    assert streams_of(net) == {}
    net = body(lambda net, x: net.d(net.b(x)) + net.c(x), b=conv(8, 8), c=conv(8, 8), d=conv(8, 8, groups=8))
    assert streams_of(net) == {"b": 2}


@pytest.mark.parametrize(
    "add",
    [
        lambda left, right: left + right,
        lambda left, right: left.add_(right),
        lambda left, right: torch.add(left, right),
        lambda left, right: sum([left, right]),
    ],
)
def test_every_way_to_add_counts(add) -> None:
    net = body(lambda net, x: add(net.b(x), net.c(x)), b=conv(8, 8), c=conv(8, 8))
    assert streams_of(net) == {"b": 2}


def test_a_concatenation_makes_no_stream() -> None:
    net = body(lambda net, x: torch.cat([net.b(x), net.c(x)], dim=1), 16, b=conv(8, 8), c=conv(8, 8))
    assert streams_of(net) == {}


def test_the_network_is_left_as_it_was_and_the_callers_modes_do_not_matter() -> None:
    model = build("resnet18").train()
    images = example("resnet18")
    units = LayerWalk.trace(model, images).units
    model.requires_grad_(False)
    with torch.inference_mode():
        found = residual_streams(model, units, images)
    assert found == {"conv1": 3, "layer2.0.conv2": 3, "layer3.0.conv2": 3, "layer4.0.conv2": 3}
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, nn.Module) and module._forward_hooks for module in model.modules())
