"""Selectors learn which inputs each group needs, and frozen selectors are exact."""

import copy

import pytest
import torch
from torch import Tensor, nn

from prune_env.common.errors import UserError
from prune_env.granularity.group.gathered import GroupSpec
from prune_env.granularity.group.selectors import GroupPrunedConv2d, straight_through

SPEC = GroupSpec(4, 3)


def layer(seed: int = 0, **settings: object) -> GroupPrunedConv2d:
    torch.manual_seed(seed)
    made = GroupPrunedConv2d.from_conv(nn.Conv2d(12, 8, 3, padding=1, **settings), SPEC)
    nn.init.normal_(made.selector.gates.weight)
    made.progress(1.0)
    return made


def images(count: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 12, 6, 6, generator=generator) + torch.randn(count, 12, 1, 1, generator=generator)


@pytest.mark.parametrize("settings", [{}, {"bias": False, "stride": 2}, {"padding_mode": "reflect"}])
def test_the_export_gives_what_the_frozen_layer_gives(settings: dict[str, object]) -> None:
    made = layer(**settings)
    made.freeze([images(16, seed=3)])
    exported = made.export()
    assert exported.convolution.groups == 4
    assert exported.convolution.weight.shape == (8, 3, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(exported(images()), made(images()), rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_not_frozen_reads_other_inputs_of_other_images() -> None:
    made = layer()
    with torch.no_grad():
        gates = straight_through(made.selector(images(32)), made.reads)
    opened = {tuple(row.nonzero().flatten().tolist()) for row in gates[:, 0]}
    assert len(opened) > 1
    assert all(len(row) <= 3 for row in opened)


def test_without_what_it_has_learned_a_selector_chooses_otherwise() -> None:
    made, blind = layer(), layer()
    nn.init.zeros_(blind.selector.gates.weight)
    for one in (made, blind):
        one.freeze([images(16)])
    assert made.shares is not None
    assert blind.shares is not None
    assert not torch.equal(made.shares > 0, blind.shares > 0)


def test_the_inputs_that_are_read_fall_from_all_to_those_wanted() -> None:
    made = layer()
    counts = []
    for share in (0.0, 1 / 12, 0.4, 0.75, 1.0):
        made.progress(share)
        counts.append(made.reads)
    assert counts[0] == counts[1] == 12
    assert counts[3] == counts[4] == 3
    assert 3 < counts[2] < 12


def test_the_choice_is_passed_straight_through_backwards() -> None:
    gates = torch.tensor([[[3.0, 1.0, 2.0]]], requires_grad=True)
    found = straight_through(gates, 1)
    assert found.tolist() == [[[3.0, 0.0, 0.0]]]
    (found * torch.tensor([1.0, 5.0, 7.0])).sum().backward()
    assert gates.grad is not None
    assert gates.grad.tolist() == [[[1.0, 5.0, 7.0]]]


def test_a_selector_stays_the_same_through_a_copy_and_through_its_state() -> None:
    made, other = layer(), layer(seed=1)
    made.freeze([images(16)])
    other.freeze([images(16)])
    other.load_state_dict(made.state_dict())
    with torch.no_grad():
        for one in (copy.deepcopy(made), other):
            assert torch.equal(one(images()), made(images()))


@pytest.mark.slow
def test_a_trained_selector_finds_the_inputs_that_each_group_needs() -> None:
    generator = torch.Generator().manual_seed(0)
    needed = [torch.randperm(12, generator=generator)[:3] for _ in range(4)]
    truth = torch.zeros(8, 12, 3, 3)
    for group, inputs in enumerate(needed):
        rows = torch.arange(2 * group, 2 * group + 2)[:, None]
        truth[rows, inputs] = torch.randn(2, 3, 3, 3, generator=generator)
    torch.manual_seed(0)
    made = GroupPrunedConv2d.from_conv(nn.Conv2d(12, 8, 3, padding=1), SPEC)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    steps = 300
    for step in range(steps):
        made.progress(step / steps)
        batch = torch.randn(32, 12, 6, 6, generator=generator)
        wanted = torch.nn.functional.conv2d(batch, truth, padding=1)
        loss = (made(batch) - wanted).square().mean() + 0.01 * made.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made.freeze([torch.randn(64, 12, 6, 6, generator=generator)])
    assert made.shares is not None
    found = sum(
        len(set(row.nonzero().flatten().tolist()) & set(inputs.tolist()))
        for row, inputs in zip(made.shares, needed, strict=True)
    )
    assert found >= 0.9 * 12


@pytest.mark.slow
def test_an_export_goes_to_onnx_and_torch_export(tmp_path: object) -> None:
    from pathlib import Path

    from prune_env.runs.export_formats import EXPORTERS, difference

    made = layer()
    made.freeze([images(16)])
    network = nn.Sequential(made.export(), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    for name, exporter in EXPORTERS.values():
        assert difference(network, exporter(network, images(), Path(str(tmp_path)) / name), images()) < 1e-5


def test_more_inputs_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"one or more of the input channels 0 to 11, .* as group 0 \(13\)"):
        GroupPrunedConv2d.from_conv(nn.Conv2d(12, 8, 3), GroupSpec(2, 13))
