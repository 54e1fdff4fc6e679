"""Plan builders: any plan meets the budget, states its exact costs and equals the masked network."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import toy_resnet, toy_walk
from zoo import (
    Net,
    channels_zeroed,
    conv,
    example,
    outputs,
    randomise,
    relative_difference,
    small_images,
    traced,
)

from prune_env import LayerWalk, PruningPlan
from prune_env.budget import Budget
from prune_env.common.errors import BudgetError
from prune_env.granularity.channel import ChannelPlanBuilder
from prune_env.granularity.group import GroupEdit, groups_of
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.pruning_rate import RatePlanBuilder
from prune_env.testing.counts import counted_macs, counted_params


def kernels_of(grouping: Grouping, seed: int = 0) -> dict[str, np.ndarray]:
    """A random score for every kernel."""
    generator = np.random.default_rng(seed)
    modules = grouping.walk.model
    shapes = {found.name: modules.get_submodule(found.name).weight.shape[:2] for found in grouping.convolutions}
    return {name: generator.random(tuple(shape)) for name, shape in shapes.items()}


def group_draft(
    walk: LayerWalk, keep: float = 0.4, rates: bool = False, round_to: int = 1, min_keep: float = 0.1
) -> GroupPlanBuilder:
    grouping = Grouping(walk, 8)
    budget = Budget(walk, "macs", keep, min_keep, round_to, beyond_channels=True)
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    about = budget, grouping, scores, kernels_of(grouping)
    return RatePlanBuilder(*about, 0.1) if rates else GroupPlanBuilder(*about)


def decided(builder: GroupPlanBuilder, seed: int) -> PruningPlan:
    """The plan of random decisions."""
    generator = np.random.default_rng(seed)
    while not builder.finished:
        assert 0.0 <= builder.reduced <= 1.0
        assert 0.0 <= builder.even <= 1.0
        keep, count = generator.random(), 2.0 ** generator.integers(0, 4)
        builder.decide((keep,) if isinstance(builder, RatePlanBuilder) else (keep, count))
    return plan_of(builder)


def plan_of(builder: GroupPlanBuilder) -> PruningPlan:
    kept = {name: channels.tolist() for name, channels in builder.kept.items()}
    return builder.grouping.walk.plan_keeping(kept, builder.grouped)


@contextmanager
def kernels_zeroed(model: nn.Module, plan: PruningPlan) -> Iterator[None]:
    """The network, with zeros in every kernel that the plan's groups leave out."""
    with torch.no_grad():
        before = {name: model.get_submodule(name).weight.clone() for name in groups_of(plan)}
        for name, planned in groups_of(plan).items():
            mask = torch.zeros_like(before[name])
            for filters, inputs in zip(planned.filters, planned.inputs, strict=True):
                for one in filters:
                    mask[one, inputs] = 1.0
            model.get_submodule(name).weight.mul_(mask)
        yield
        for name, weight in before.items():
            model.get_submodule(name).weight.copy_(weight)


def check(walk: LayerWalk, builder: GroupPlanBuilder, plan: PruningPlan, images: Tensor) -> None:
    assert plan.costs.macs <= builder.budget.limit
    assert plan.costs.macs == builder.budget.cost(builder.widths) == walk.macs(plan.widths, plan.by_layer)
    small = plan.apply(walk.model)
    assert counted_macs(small, images) == plan.costs.macs
    assert counted_params(small) == plan.costs.params
    with kernels_zeroed(walk.model, plan), channels_zeroed(walk.model, walk.units, plan.kept):
        expected = outputs(walk.model, images)
    assert relative_difference(outputs(small, images), expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("rates", [False, True], ids=["counts", "rates"])
@pytest.mark.parametrize(
    "name",
    ["cifar_resnet20", "resnet18", "cifar_vgg16_bn", "mobilenet_v2", "resnext50_32x4d", "densenet121", "googlenet"],
)
def test_plans_meet_the_budget_cost_what_they_say_and_are_the_masked_network(name: str, rates: bool) -> None:
    walk = traced(name).walk
    grouped = 0
    for seed in range(2):
        # Rates do not change the costs of depthwise and grouped convolutions, so the budget must be larger.
        builder = group_draft(walk, 0.6 if rates else 0.4, rates, round_to=(1, 4)[seed])
        plan = decided(builder, seed)
        check(walk, builder, plan, example(name))
        grouped += sum(count > 1 for count in plan.groups.values())
    assert grouped > 0


@pytest.mark.parametrize("rates", [False, True], ids=["counts", "rates"])
def test_many_plans_of_a_small_network_are_the_masked_network(rates: bool) -> None:
    walk = toy_walk(randomise(toy_resnet()))
    images = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    counts = set()
    for seed in range(40):
        builder = group_draft(walk, 0.35 + 0.6 * seed / 40, rates, round_to=(1, 2)[seed % 2])
        plan = decided(builder, seed)
        check(walk, builder, plan, images)
        counts |= set(plan.groups.values())
    assert counts >= {1, 2, 4} if rates else counts >= {2, 4}


class TestABudgetBelowWholeChannels:
    """Widths of at least half the channels: groups alone reach the smaller budgets."""

    @pytest.mark.parametrize("round_to", [1, 4])
    @pytest.mark.parametrize("network", ["toy", pytest.param("cifar_resnet20", marks=pytest.mark.slow)])
    def test_is_met_from_the_smallest_plan_on_whatever_is_decided(self, network: str, round_to: int) -> None:
        toy = network == "toy"
        walk = toy_walk(randomise(toy_resnet())) if toy else traced(network).walk
        images = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)) if toy else example(network)
        whole = group_draft(walk, 1.0, round_to=round_to, min_keep=0.5)
        grouped, widths = whole.grouped_at(0.0)
        smallest, least = grouped.cost(widths), whole.budget.cost(whole.budget.least)
        assert smallest < 0.8 * least
        counts = set()
        for seed in range(20 if toy else 4):
            cost = smallest + (least - smallest) * seed / (20 if toy else 4)
            builder = group_draft(walk, cost / whole.budget.dense, round_to=round_to, min_keep=0.5)
            plan = decided(builder, seed)
            check(walk, builder, plan, images)
            counts |= set(plan.groups.values())
        assert counts >= {2, 4}

    def test_is_spent_by_even_ratios_in_the_largest_groups(self) -> None:
        builder = group_draft(toy_walk(), 0.2, min_keep=0.5)
        while not builder.finished:
            builder.decide((builder.even, 8.0))
        assert 0.8 * 0.2 <= builder.share <= 0.2


def test_without_groups_the_builder_decides_as_the_plain_one() -> None:
    walk = toy_walk()
    for keep in (0.2, 0.5, 0.9):
        builder, plain = (
            group_draft(walk),
            ChannelPlanBuilder(Budget(walk, "macs", 0.4), {unit.name: walk.magnitudes(unit) for unit in walk.units}),
        )
        while not builder.finished:
            assert (builder.even, builder.reduced) == (plain.even, plain.reduced)
            builder.decide((keep, 1.0))
            plain.decide((keep,))
        assert builder.widths.tolist() == plain.widths.tolist()
        assert builder.grouped == {}


def in_groups(count: int, reads: int, outputs: int = 8) -> GroupEdit:
    """Groups of consecutive filters that all read the same first inputs."""
    size = outputs // count
    filters = [list(range(number * size, (number + 1) * size)) for number in range(count)]
    return GroupEdit(inputs=[list(range(reads))] * count, filters=filters)


def three(inner: int = 8) -> LayerWalk:
    """Convolutions ``a``, ``b`` and ``c`` in a row; ``b`` reads what ``a`` writes, and nothing else does."""

    def forward(net: Net, images: Tensor) -> Tensor:
        return net.fc(torch.relu(net.c(torch.relu(net.b(torch.relu(net.a(images)))))).mean((2, 3)))

    torch.manual_seed(0)
    net = Net(forward, a=conv(3, inner), b=conv(inner, 8), c=conv(8, 4), fc=nn.Linear(4, 5))
    return LayerWalk.trace(net.eval(), small_images())


def test_what_no_group_reads_is_cut_where_it_comes_from() -> None:
    walk = three()
    grouping = Grouping(walk, 8)
    kernels = kernels_of(grouping)
    # Both groups of b want the inputs 0 to 3 alone.
    kernels["b"][:, :4] += 10.0
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    builder = GroupPlanBuilder(Budget(walk, "macs", 1.0), grouping, scores, kernels)
    builder.decide((1.0, 1.0))
    assert builder.kept["a"].tolist() == list(range(8))
    before = builder.reduced
    builder.decide((1.0, 2.0))
    assert builder.kept["a"].tolist() == [0, 1, 2, 3]
    assert builder.widths[0] == 4
    assert builder.reduced > before
    builder.decide((1.0, 1.0))
    plan = plan_of(builder)
    assert plan.widths["a"] == 4
    assert plan.groups == {"b": 2}
    assert groups_of(plan)["b"].reads == 4
    small = plan.apply(walk.model)
    assert (small.a.out_channels, small.c.in_channels) == (4, 8)
    check(walk, builder, plan, small_images())


def test_what_is_cut_upstream_leaves_the_groups_that_write_it_whole() -> None:
    walk = three()
    grouping = Grouping(walk, 8)
    kernels = kernels_of(grouping)
    kernels["c"][:, :5] += 10.0
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    builder = RatePlanBuilder(Budget(walk, "macs", 1.0), grouping, scores, kernels, 0.1)
    builder.decide((1.0,))
    builder.decide((0.25,))
    assert builder.grouped["b"].inputs[0] != builder.grouped["b"].inputs[1]
    assert len(builder.grouped["b"].inputs) == 4
    # c is one group and reads 5 of 8 channels; b writes them in 4 groups, so none can be cut.
    builder.decide((5 / 8,))
    assert builder.kept["b"].tolist() == list(range(8))
    assert builder.grouped["c"].inputs == [[0, 1, 2, 3, 4]]
    check(walk, builder, plan_of(builder), small_images())


def test_a_rate_below_a_half_is_plain_channel_pruning() -> None:
    walk = three()
    builder = group_draft(walk, 1.0, rates=True)
    for keep in (1.0, 0.75, 1.0):
        builder.decide((keep,))
    plan = plan_of(builder)
    # The inputs that b does not read are gone from a, and then b is an ordinary convolution.
    assert plan.widths["a"] == 6
    assert plan.edits == {}
    assert type(plan.apply(walk.model).b) is nn.Conv2d


def test_what_is_undecided_counts_as_whole() -> None:
    walk = three()
    builder = group_draft(walk, 0.5, rates=True)
    assert builder.reduced == 0.0
    assert 0.1 < builder.even < 1.0
    builder.decide((1.0,))
    builder.decide((0.2,))
    left = walk.macs({"a": len(builder.kept["a"])}, {"b": in_groups(4, 2)})
    assert builder.reduced == pytest.approx(1.0 - left / walk.macs())
    assert group_draft(walk, 1.0, rates=True).even == 1.0


def test_rates_that_cannot_meet_the_budget_are_refused_before_any_step() -> None:
    with pytest.raises(
        BudgetError, match=r"0\.\d+ remain with every convolution .* at its highest pruning rate, 0\.900"
    ):
        group_draft(three(), 0.05, rates=True)


def test_a_lower_budget_gives_other_groups_and_they_differ_by_layer() -> None:
    walk = traced("cifar_resnet20").walk
    found = []
    for keep in (0.5, 0.2):
        builder = group_draft(walk, keep, rates=True)
        while not builder.finished:
            builder.decide((builder.even,))
        units = range(len(builder.budget.units))
        found.append({name: count for unit in units for name, count in builder.decided(unit)["groups"].items()})
    assert found[0] != found[1]
    assert len(set(found[1].values())) > 1


def test_the_model_is_left_alone() -> None:
    walk = traced("cifar_resnet20").walk
    before = copy.deepcopy(walk.model.state_dict())
    plan = decided(group_draft(walk), 3)
    plan.apply(walk.model)
    assert all(torch.equal(before[name], tensor) for name, tensor in walk.model.state_dict().items())


def test_a_convolution_that_reads_what_it_writes_can_be_narrowed() -> None:
    def forward(net: Net, images: Tensor) -> Tensor:
        x = torch.relu(net.a(images))
        x = torch.relu(x + net.c(x))
        return net.fc(torch.relu(net.e(x)).mean((2, 3)))

    torch.manual_seed(0)
    net = Net(forward, a=conv(3, 8), c=conv(8, 8), e=conv(8, 10), fc=nn.Linear(10, 5)).eval()
    walk = LayerWalk.trace(net, small_images())
    grouping = Grouping(walk, 8)
    kernels = kernels_of(grouping)
    # All want the same channels of the stream.
    for name in ("c", "e"):
        kernels[name][:, :4] += 10.0
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    for keep in (0.2, 0.4, 0.6, 0.8):
        builder = RatePlanBuilder(Budget(walk, "macs", 1.0), grouping, scores, kernels, 0.1)
        while not builder.finished:
            builder.decide((keep,))
        check(walk, builder, plan_of(builder), small_images())
        assert all(len(one.inputs) > 1 or len(one.inputs[0]) < 8 for one in builder.grouped.values())


def test_what_no_group_reads_behind_a_depthwise_convolution_is_cut_before_it() -> None:
    def forward(net: Net, images: Tensor) -> Tensor:
        x = torch.relu(net.dw(torch.relu(net.ex(images))))
        return net.fc(torch.relu(net.pr(x)).mean((2, 3)))

    torch.manual_seed(0)
    net = Net(forward, ex=conv(3, 16), dw=conv(16, 16, groups=16), pr=conv(16, 8), fc=nn.Linear(8, 5)).eval()
    walk = LayerWalk.trace(net, small_images())
    grouping = Grouping(walk, 8)
    kernels = kernels_of(grouping)
    kernels["pr"][:, :8] += 10.0
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    builder = RatePlanBuilder(Budget(walk, "macs", 1.0), grouping, scores, kernels, 0.1)
    while not builder.finished:
        builder.decide((0.5,))
    assert builder.kept["ex"].tolist() == list(range(8))
    check(walk, builder, plan_of(builder), small_images())
