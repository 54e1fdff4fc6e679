"""Channels that no group reads are cut, as far as all groups stay equal, and the outputs do not change."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import (
    Net,
    body,
    conv,
    randomise,
    small_images,
)

from prune_env import LayerWalk, PruningPlan
from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.unread import without_unread
from prune_env.testing.counts import counted_macs, counted_params

Lists = Sequence[Sequence[int]]
HALVES = ((0, 1, 2, 3), (4, 5, 6, 7))


def row(seed: int = 0) -> nn.Sequential:
    """Units ``0`` and ``3`` of 8 channels each, then ``6``, which the output protects."""
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(8)]
    return randomise(nn.Sequential(conv(3, 8), norms[0], nn.ReLU(), conv(8, 8), norms[1], nn.ReLU(), conv(8, 4))).eval()


def groups(inputs: Lists, filters: Lists) -> GroupEdit:
    return GroupEdit(inputs=[list(own) for own in inputs], filters=[list(own) for own in filters])


def same_outputs(walk: LayerWalk, plan: PruningPlan, narrow: PruningPlan) -> bool:
    with torch.no_grad():
        before, after = (one.apply(walk.model)(small_images(2)) for one in (plan, narrow))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    return bool(before.std() > 0.01)


def test_what_no_group_reads_is_cut_where_it_is_made() -> None:
    walk = LayerWalk.trace(row(), small_images())
    plan = walk.plan_keeping({"0": [0, 1, 2, 3, 5, 6, 7]}, {"3": groups([[1, 5], [5, 7]], HALVES)})
    narrow = without_unread(plan, walk)
    assert narrow.kept == {"0": (1, 5, 7), "3": tuple(range(8)), "6": tuple(range(4))}
    assert groups_of(narrow) == groups_of(plan)
    assert same_outputs(walk, plan, narrow)
    small = narrow.apply(walk.model)
    assert small[0].out_channels == small[1].num_features == small[3].in_channels == 3
    assert counted_macs(small, small_images()) == narrow.costs.macs < plan.costs.macs
    assert counted_params(small) == narrow.costs.params < plan.costs.params


def test_a_plan_of_which_everything_is_read_stays_as_it_is() -> None:
    walk = LayerWalk.trace(row(), small_images())
    plan = walk.plan_keeping({"0": [0, 2, 4, 6]}, {"3": groups([[0, 2], [4, 6]], HALVES)})
    assert without_unread(plan, walk) == plan


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (2, 4), (4, 4), (8, 8)])
def test_widths_are_cut_to_multiples(multiple: int, width: int) -> None:
    walk = LayerWalk.trace(row(), small_images())
    plan = walk.plan_keeping({}, {"3": groups([[1, 5], [5, 7]], HALVES)})
    narrow = without_unread(plan, walk, multiple)
    assert narrow.widths["0"] == width
    assert {1, 5, 7} <= set(narrow.kept["0"])
    assert same_outputs(walk, plan, narrow)


@pytest.mark.parametrize(
    ("filters", "left"),
    [(HALVES, ((1, 2, 3), (4, 5, 6))), (((1, 4, 6, 7), (0, 2, 3, 5)), ((1, 4, 6), (2, 3, 5)))],
    ids=["in order", "re-assigned"],
)
def test_what_is_written_in_groups_loses_as_many_filters_of_each(filters: Lists, left: Lists) -> None:
    walk = LayerWalk.trace(row(), small_images())
    # Nothing reads channels 0 and 7, which are one filter of each group.
    reads = [[1, 2, 3], [4, 5, 6]]
    grouped = {"3": groups([[0, 1, 2], [3, 4, 7]], filters), "6": groups(reads, [[0, 1], [2, 3]])}
    plan = walk.plan_keeping({}, grouped)
    narrow = without_unread(plan, walk)
    assert groups_of(narrow)["3"] == groups(grouped["3"].inputs, left)
    assert groups_of(narrow)["6"] == grouped["6"]
    assert narrow.widths["3"] == 6
    # Channels 5 and 6 of the first unit feed no group of the second unit.
    assert narrow.kept["0"] == (0, 1, 2, 3, 4, 7)
    assert same_outputs(walk, plan, narrow)
    assert counted_macs(narrow.apply(walk.model), small_images()) == narrow.costs.macs


def test_no_group_loses_a_filter_where_one_group_can_spare_none() -> None:
    walk = LayerWalk.trace(row(), small_images())
    grouped = {"3": groups([[0, 1, 2], [3, 4, 7]], HALVES), "6": groups([[0, 1, 2, 3]] * 2, [[0, 1], [2, 3]])}
    plan = walk.plan_keeping({"0": [0, 1, 2, 3, 4, 7]}, grouped)
    assert without_unread(plan, walk) == plan


def test_a_reader_without_groups_reads_everything() -> None:
    def middle(net: Net, images: Tensor) -> Tensor:
        return net.b(images) + net.c(images)

    walk = LayerWalk.trace(body(middle, b=conv(8, 8), c=conv(8, 8)), small_images())
    grouped = {"b": groups([[0, 1], [1, 2]], HALVES)}
    plan = walk.plan_keeping({}, grouped)
    assert without_unread(plan, walk) == plan
    both = walk.plan_keeping({}, {**grouped, "c": groups([[2, 3], [2, 5]], HALVES)})
    narrow = without_unread(both, walk)
    assert narrow.kept["a"] == (0, 1, 2, 3, 5)
    assert same_outputs(walk, both, narrow)


def test_a_unit_that_several_write_in_groups_stays() -> None:
    def middle(net: Net, images: Tensor) -> Tensor:
        return net.b(images) + net.c(images)

    walk = LayerWalk.trace(body(middle, b=conv(8, 8), c=conv(8, 8)), small_images())
    everything = list(range(8))
    both = {name: groups([everything] * 2, HALVES) for name in ("b", "c")}
    plan = walk.plan_keeping({}, {**both, "z": groups([[0, 4]] * 2, [[0, 1, 2], [3, 4, 5]])})
    assert without_unread(plan, walk) == plan
    alone = walk.plan_keeping({}, {"b": both["b"], "z": groups_of(plan)["z"]})
    narrow = without_unread(alone, walk)
    assert narrow.widths["b"] == 2
    assert same_outputs(walk, alone, narrow)


def test_a_protected_unit_stays() -> None:
    walk = LayerWalk.trace(row(), small_images(), {"0": "by the test"})
    plan = walk.plan_keeping({}, {"3": groups([[1, 5], [5, 7]], HALVES)})
    assert without_unread(plan, walk) == plan


def test_one_channel_stays_of_a_unit_that_nothing_reads() -> None:
    def middle(net: Net, images: Tensor) -> Tensor:
        return torch.cat([images, torch.relu(net.b(images))], 1)

    walk = LayerWalk.trace(body(middle, channels=16, b=conv(8, 8)), small_images())
    plan = walk.plan_keeping({}, {"z": groups([[0, 1], [2, 3]], [[0, 1, 2], [3, 4, 5]])})
    narrow = without_unread(plan, walk)
    assert narrow.widths["b"] == 1
    assert narrow.widths["a"] == 8, "b reads it whole"
    assert same_outputs(walk, plan, narrow)


def test_a_channel_stays_as_long_as_one_of_its_copies_is_read() -> None:
    crelu = body(lambda _, x: torch.cat([torch.relu(x), torch.relu(-x)], 1), 16)
    walk = LayerWalk.trace(crelu, small_images())
    plan = walk.plan_keeping({}, {"z": groups([[0, 9], [3, 11]], [[0, 1, 2], [3, 4, 5]])})
    narrow = without_unread(plan, walk)
    assert narrow.kept["a"] == (0, 1, 3)
    assert same_outputs(walk, plan, narrow)


def test_a_depthwise_convolution_hands_on_what_others_read() -> None:
    walk = LayerWalk.trace(body(lambda net, x: net.d(x), d=conv(8, 8, groups=8)), small_images())
    plan = walk.plan_keeping({}, {"z": groups([[0, 2], [2, 7]], [[0, 1, 2], [3, 4, 5]])})
    narrow = without_unread(plan, walk)
    assert narrow.kept["a"] == (0, 2, 7)
    assert narrow.apply(walk.model).d.groups == 3
    assert same_outputs(walk, plan, narrow)


@pytest.mark.parametrize("seed", range(8))
def test_random_groups_give_the_same_outputs_with_fewer_channels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    walk = LayerWalk.trace(row(seed), small_images())

    def some(whole: int, count: int) -> Lists:
        return [sorted(generator.permutation(whole)[:count].tolist()) for _ in range(2)]

    def shared(whole: int) -> Lists:
        order = generator.permutation(whole)
        return [sorted(order[: whole // 2].tolist()), sorted(order[whole // 2 :].tolist())]

    # The output's channels must stay in their order.
    grouped = {"3": groups(some(8, 3), shared(8)), "6": groups(some(8, 2), [[0, 1], [2, 3]])}
    plan = walk.plan_keeping({}, grouped)
    narrow = without_unread(plan, walk)
    read = set().union(*map(set, grouped["3"].inputs))
    assert set(narrow.kept["0"]) == read
    assert set().union(*map(set, grouped["6"].inputs)) <= set(narrow.kept["3"])
    assert same_outputs(walk, plan, narrow)
    assert counted_params(narrow.apply(walk.model)) == narrow.costs.params


def test_what_the_plan_reaches_of_its_budget_follows_its_costs() -> None:
    walk = LayerWalk.trace(row(), small_images())
    plan = walk.plan({"0": 4})
    for metric in ("macs", "params"):
        share = getattr(plan.costs, metric) / getattr(plan.costs, f"dense_{metric}")
        document = plan.model_dump() | {"budget": {"metric": metric, "keep": 0.9, "achieved": 0.89}}
        found = PruningPlan.model_validate(document).costing(plan.costs)
        assert found.budget is not None
        assert found.budget.achieved == share < 0.89
    latency = PruningPlan.model_validate(
        plan.model_dump() | {"budget": {"metric": "latency", "keep": 0.9, "achieved": 0.89}}
    )
    assert latency.costing(plan.costs).budget == latency.budget
