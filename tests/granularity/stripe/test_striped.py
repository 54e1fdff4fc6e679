"""The deployed form of stripes: it computes what the masked convolution computes, at the cost of its stripes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prune_env.common.errors import UserError
from prune_env.granularity.stripe.striped import StripedConv2d
from prune_env.runs.export_formats import EXPORTERS
from prune_env.runs.export_formats import difference as exported_difference
from prune_env.testing.counts import counted_macs, counted_params

SOME = [[0, 1, 4, 8], [], [4], list(range(9)), [2, 6]]
"""Positions of five filters of 3 x 3: several, none, the middle, all, two corners."""


def drawn(layer: nn.Conv2d, seed: int, keep: float = 0.5) -> list[list[int]]:
    """Random positions for each filter; at least one in all."""
    generator = torch.Generator().manual_seed(seed)
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    stays = torch.rand(layer.out_channels, kernel, generator=generator) < keep
    stays[0, seed % kernel] = True
    return [row.nonzero().flatten().tolist() for row in stays]


def masked(layer: nn.Conv2d, positions: list[list[int]]) -> nn.Conv2d:
    """The convolution, with zeros in every stripe that goes."""
    found = copy.deepcopy(layer)
    mask = torch.zeros(layer.out_channels, 1, layer.kernel_size[0] * layer.kernel_size[1])
    for row, own in zip(mask, positions, strict=True):
        row[:, own] = 1.0
    found.weight.data.mul_(mask.reshape(layer.out_channels, 1, *layer.kernel_size))
    return found


def check(layer: nn.Conv2d, positions: list[list[int]], images: Tensor) -> None:
    made, wanted = StripedConv2d.from_convolution(layer, positions), masked(layer, positions)
    with torch.no_grad():
        expected = wanted(images)
        torch.testing.assert_close(made(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(made(images.contiguous(memory_format=torch.channels_last)), expected)
    stripes = sum(map(len, positions))
    pixels = expected.shape[2] * expected.shape[3]
    assert made.output_size(images.shape[2], images.shape[3]) == tuple(expected.shape[2:])
    assert counted_macs(made, images) == stripes * layer.in_channels * pixels
    assert counted_params(made) == stripes * layer.in_channels + (0 if layer.bias is None else layer.out_channels)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 1)], ids=str)
def test_it_computes_the_masked_convolution_at_the_cost_of_its_stripes(
    kernel: Any, padding: int, stride: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 5, kernel, stride, padding, bias=bias)
    for number, size in enumerate([(9, 9), (8, 13), (5, 6), (17, 5)]):
        check(layer, drawn(layer, number), torch.randn(2, 4, *size))


@pytest.mark.parametrize(
    "about",
    [
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": (1, 4), "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "dilation": (1, 3), "stride": (1, 2)},
        {"kernel_size": 3, "padding": (0, 1), "stride": (2, 1)},
        {"kernel_size": 3, "padding": 5, "dilation": 5},
        {"kernel_size": 3, "padding": 3, "stride": 3},
        {"kernel_size": (2, 5), "padding": (1, 2)},
    ],
    ids=str,
)
def test_dilation_and_uneven_padding_are_exact(about: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 6, **about)
    for number, size in enumerate([(7, 7), (8, 11)]):
        check(layer, drawn(layer, number), torch.randn(2, 3, *size))


def test_a_kernel_that_is_larger_than_the_image_reads_padding_alone_at_some_positions() -> None:
    torch.manual_seed(0)
    for stride in (1, 2):
        layer = nn.Conv2d(3, 4, 5, stride, padding=4)
        check(layer, [[0], [20, 24], list(range(0, 25, 3)), [12]], torch.randn(2, 3, 1, 2))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_stripes_are_exact(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from([1, 2, 3, 5, (3, 1), (1, 4)]))
    numbers = {name: data.draw(st.integers(low, 3)) for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))}
    layer = nn.Conv2d(3, 4, kernel, bias=data.draw(st.booleans()), **numbers)
    area = layer.kernel_size[0] * layer.kernel_size[1]
    own = st.lists(st.integers(0, area - 1), unique=True).map(sorted)
    positions = data.draw(st.lists(own, min_size=4, max_size=4).filter(any))
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(layer.dilation, layer.kernel_size, layer.padding, strict=True)]
    size = [data.draw(st.integers(max(1, least), max(1, least) + 9)) for least in reach]
    check(layer, positions, torch.randn(2, 3, *size))


def test_gradients_are_those_of_the_masked_convolution() -> None:
    torch.manual_seed(0)
    for stride in (1, 2):
        layer = nn.Conv2d(3, 5, 3, stride, padding=1)
        wanted, made = masked(layer, SOME), StripedConv2d.from_convolution(layer, SOME)
        images = torch.randn(2, 3, 9, 9, requires_grad=True)
        gradients = []
        for module in (wanted, made):
            module(images).square().sum().backward()
            assert images.grad is not None
            gradients.append(images.grad)
            images.grad = None
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(made.bias.grad, layer_grad(wanted.bias), rtol=1e-4, atol=1e-4)
        through = StripedConv2d.from_convolution(with_weight(layer, layer_grad(wanted.weight)), SOME)
        torch.testing.assert_close(made.weight.grad, through.weight.data, rtol=1e-4, atol=1e-4)


def layer_grad(parameter: nn.Parameter | None) -> Tensor:
    assert parameter is not None
    assert parameter.grad is not None
    return parameter.grad


def with_weight(layer: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    other = copy.deepcopy(layer)
    other.weight.data = weight
    return other


def test_it_trains_and_its_copies_and_weight_files_compute_the_same() -> None:
    torch.manual_seed(0)
    made = StripedConv2d.from_convolution(nn.Conv2d(3, 5, 3, padding=1), SOME)
    truth = StripedConv2d.from_convolution(nn.Conv2d(3, 5, 3, padding=1), SOME)
    images = torch.randn(8, 3, 8, 8)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.3)
    losses = []
    for _ in range(60):
        loss = (made(images) - truth(images).detach()).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    assert set(made.state_dict()) == {"weight", "bias"}
    for same in (copy.deepcopy(made), truth):
        same.load_state_dict(made.state_dict())
        torch.testing.assert_close(same(images), made(images), rtol=0, atol=0)
    torch.testing.assert_close(made.double()(images.double()).float(), same(images), rtol=1e-4, atol=1e-5)


def test_frozen_weights_and_the_training_mode_are_kept_and_the_dense_layer_is_left_alone() -> None:
    layer = nn.Conv2d(3, 5, 3).eval()
    layer.weight.requires_grad_(False)
    before = layer.weight.clone()
    made = StripedConv2d.from_convolution(layer, SOME)
    assert (made.weight.requires_grad, made.bias.requires_grad, made.training) == (False, True, False)
    made.weight.data.zero_()
    made.bias.data.zero_()
    assert torch.equal(layer.weight, before)
    assert layer.bias is not None
    assert layer.bias.abs().sum() > 0
    assert "3, 5, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1), stripes=16" in repr(made)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [6, 16])
def test_autocast_gives_the_type_of_a_convolution_and_gradients(side: int, bias: bool, stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, stride, padding=1, bias=bias)
    made = StripedConv2d.from_convolution(layer, SOME)
    images = torch.randn(2, 3, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = made(images)
        assert outputs.dtype == layer(images).dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), made(images), rtol=0.05, atol=0.05)
    outputs.float().square().sum().backward()
    assert made.weight.grad is not None
    assert made.weight.grad.dtype == torch.float32
    assert float(made.weight.grad.abs().max()) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("format_", EXPORTERS)
def test_an_export_computes_the_same_for_any_number_of_images(format_: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = StripedConv2d.from_convolution(nn.Conv2d(3, 5, 3, padding=1), SOME)
    second = StripedConv2d.from_convolution(nn.Conv2d(5, 5, 3, 2, padding=1, bias=False), SOME)
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(125, 4)).eval()
    images = torch.randn(4, 3, 9, 9)
    name, exporter = EXPORTERS[format_]
    assert exported_difference(network, exporter(network, images, tmp_path / name), images) < 1e-5


@pytest.mark.parametrize(
    ("layer", "positions", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), [[0]] * 4, "a convolution of 2 groups with padding mode 'zeros' is given"),
        (nn.Conv2d(4, 4, 3, padding_mode="reflect"), [[0]] * 4, "padding mode 'reflect' is given"),
        (nn.Conv2d(4, 4, 3), [[0]] * 3, "3 stripes of 3 filters are given for 4 output channels"),
        (nn.Conv2d(4, 4, 3), [[]] * 4, "0 stripes of 4 filters are given"),
        (nn.Conv2d(4, 4, 3), [[0], [9], [0], [0]], r"filter 1 keeps the positions \[9\]; .* of 0 to 8"),
        (nn.Conv2d(4, 4, 3), [[0], [0], [2, 1], [0]], r"filter 2 keeps the positions \[2, 1\]; they must be ascending"),
        (nn.Conv2d(4, 4, 3), [[0], [0], [0], [-1]], r"filter 3 keeps the positions \[-1\]"),
    ],
)
def test_stripes_that_the_convolution_does_not_have_are_refused(
    layer: nn.Conv2d, positions: list[list[int]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        StripedConv2d.from_convolution(layer, positions)
