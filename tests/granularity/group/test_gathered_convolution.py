"""Grouped convolutions whose groups choose what they read."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prune_env.common.errors import UserError
from prune_env.granularity.group.gathered import (
    GatheredConv2d,
    GroupSpec,
    choose_inputs,
    configure_groups,
    possible_groups,
)

channels = st.integers(1, 512)
rates = st.floats(0.0, 0.999)


@settings(deadline=None)
@given(inputs=channels, outputs=channels, rate=rates, more=rates)
def test_groups_divide_and_do_not_prune_more_than_asked(inputs: int, outputs: int, rate: float, more: float) -> None:
    spec = configure_groups(inputs, outputs, rate)
    assert inputs % spec.groups == outputs % spec.groups == 0
    assert spec.groups <= 1.0 / (1.0 - rate) + 1e-6
    assert abs(spec.inputs - (1.0 - rate) * inputs) <= max(0.5, 1.0 - (1.0 - rate) * inputs) + 1e-6
    low, high = sorted((rate, more))
    assert configure_groups(inputs, outputs, low).groups <= configure_groups(inputs, outputs, high).groups


@pytest.mark.parametrize(
    ("inputs", "outputs", "rate", "spec"),
    [
        (64, 64, 0.75, GroupSpec(4, 16)),
        (64, 128, 0.9, GroupSpec(8, 6)),
        (48, 48, 2 / 3, GroupSpec(3, 16)),
        (64, 64, 0.3, GroupSpec(1, 45)),
        (7, 5, 0.9, GroupSpec(1, 1)),
    ],
)
def test_rates_give_the_known_configurations(inputs: int, outputs: int, rate: float, spec: GroupSpec) -> None:
    assert configure_groups(inputs, outputs, rate) == spec


def test_inputs_are_rounded_where_that_is_asked() -> None:
    assert configure_groups(64, 64, 0.7, multiple=8).inputs == 16
    assert configure_groups(64, 64, 0.99, multiple=8).inputs == 8
    assert configure_groups(4, 4, 0.9, multiple=8).inputs == 4


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match=r"pruning_rate: .* must be in \[0, 1\)"):
        configure_groups(8, 8, rate)


def test_possible_groups_are_the_common_divisors() -> None:
    assert possible_groups(12, 18) == (1, 2, 3, 6)
    assert possible_groups(7, 3) == (1,)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("stride", "padding", "mode"), [(1, 1, "zeros"), (2, 0, "zeros"), (1, 2, "reflect")])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gathered_convolution_is_the_dense_one_with_all_other_kernels_zero(
    kernel: int, stride: int, padding: int, mode: str, bias: bool
) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(12, 8, kernel, stride, padding, bias=bias, padding_mode=mode)
    norms = dense.weight.detach().double().flatten(2).square().sum(2)
    chosen = choose_inputs(norms.view(4, -1, 12).sum(1).numpy(), 3)
    small = GatheredConv2d.from_convolution(dense, chosen)
    with torch.no_grad():
        masked = torch.zeros_like(dense.weight)
        for group, inputs in enumerate(chosen):
            rows = slice(2 * group, 2 * group + 2)
            masked[rows, inputs] = dense.weight[rows, inputs]
        dense.weight.copy_(masked)
        images = torch.randn(3, 12, 9, 7)
        torch.testing.assert_close(small(images), dense(images), rtol=1e-5, atol=1e-5)
        with FlopCounterMode(display=False) as counted:
            out = small(images)
    assert counted.get_total_flops() // 2 == out.shape[0] * out.shape[2] * out.shape[3] * 8 * 3 * kernel * kernel


def test_a_group_reads_the_inputs_that_its_filters_weigh_most() -> None:
    chosen = choose_inputs(np.array([[0.0, 9.0, 0.0, 0.0, 4.0, 0.0], [25.0, 0.0, 0.0, 0.0, 1.0, 0.0]]), 2)
    assert [inputs.tolist() for inputs in chosen] == [[1, 4], [0, 4]]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([[0, 1], [2, 3], [0, 1]], "3 groups given for 8 output channels"),
        ([[0, 0], [1, 2]], "group 0 reads the inputs .0, 0."),
        ([[0, 1], [2, 6]], "group 1 reads"),
        ([[0, 1], [2]], "group 1 reads"),
        ([[], []], "group 0 reads"),
    ],
)
def test_groups_that_cannot_be_are_refused(chosen: list[list[int]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        GatheredConv2d.from_convolution(nn.Conv2d(6, 8, 3), [np.array(one, dtype=np.int64) for one in chosen])


def test_a_convolution_that_is_grouped_already_is_refused() -> None:
    with pytest.raises(UserError, match="2 groups is given"):
        GatheredConv2d.from_convolution(nn.Conv2d(6, 8, 3, groups=2), [np.arange(2)])
