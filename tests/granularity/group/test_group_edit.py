"""Groups of a plan: invalid groups are refused in words, and the applied plan equals the masked network."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_resnet, toy_walk
from zoo import (
    Net,
    body,
    chain,
    channels_zeroed,
    conv,
    outputs,
    relative_difference,
    small_images,
)

from prune_env import LayerWalk, PruningPlan
from prune_env.batch_norm.folding import find_fold_pairs
from prune_env.common.errors import PlanError, UserError
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.plan import apply_plan
from prune_env.repair.least_squares import LeastSquares
from prune_env.testing.counts import counted_macs, counted_params

Lists = list[list[int]]

WALK = LayerWalk.trace(chain(), small_images())
"""Units ``0`` of 8 channels and ``3`` of 6; the linear layer ``7`` reads 16 pixels of each of the latter."""

GROUPED = {"3": GroupEdit(inputs=[[0, 1, 4], [1, 2, 3]], filters=[[0, 2, 5], [1, 3, 4]])}


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


def plan_of_groups(walk: LayerWalk, name: str, reads: Lists, filters: Lists) -> PruningPlan:
    """The plan that cuts nothing but the kernels of one convolution."""
    return walk.plan_keeping({}, {name: GroupEdit(inputs=reads, filters=filters)})


def masked(model: nn.Module, grouped: Mapping[str, GroupEdit]) -> nn.Module:
    """The dense network, with zeros in every kernel that the groups leave out."""
    found = copy.deepcopy(model)
    for name, planned in grouped.items():
        weight = found.get_submodule(name).get_parameter("weight")
        mask = torch.zeros_like(weight)
        for filters, inputs in zip(planned.filters, planned.inputs, strict=True):
            mask[np.ix_(filters, inputs)] = 1.0
        weight.data.mul_(mask)
    return found


def difference(walk: LayerWalk, plan: PruningPlan, images: Tensor) -> float:
    """The relative difference between the plan's network and the masked network."""
    expected = masked(walk.model, groups_of(plan))
    with channels_zeroed(expected, walk.units, plan.kept):
        wanted = outputs(expected, images)
    return relative_difference(outputs(plan.apply(walk.model), images), wanted)


class TestAFile:
    @pytest.mark.parametrize(
        ("inputs", "filters", "message"),
        [
            ([[0, 1], [2]], [[0, 1, 2], [3, 4, 5]], "group 1 has 1 inputs, and group 0 2"),
            ([[0, 1], [2, 3]], [[0, 1, 2, 3], [4, 5]], "group 1 has 2 filters, and group 0 4"),
            ([[0, 1]], [[0, 1, 2], [3, 4, 5]], "inputs are given for 1 groups and filters for 2"),
            (
                [[0, 1], [2, 2]],
                [[0, 1, 2], [3, 4, 5]],
                "group 1: inputs must be channels in ascending order, each once",
            ),
            ([[-1, 1], [2, 3]], [[0, 1, 2], [3, 4, 5]], "group 0: inputs must be channels in ascending order"),
            ([[0, 1], [3, 2]], [[0, 1, 2], [3, 4, 5]], "group 1: inputs must be channels in ascending order"),
            ([[0, 1], [2, 3]], [[0, 2, 1], [3, 4, 5]], "group 0: filters must be channels in ascending order"),
            ([[0, 1], [2, 3]], [[-2, 1, 2], [3, 4, 5]], "group 0: filters must be channels in ascending order"),
            ([[0, 1], [2, 3]], [[0, 1, 2], [2, 4, 5]], "output channel 2 is in more than one group"),
            ([[], []], [[0, 1, 2], [3, 4, 5]], "group 0: inputs must be channels"),
            ([[0, 1], []], [[0, 1, 2], [3, 4, 5]], "group 1: inputs must be channels"),
            ([], [], r"edits: .*group, layer '3': inputs: .*at least 1"),
            ([[0.5, 1], [2, 3]], [[0, 1, 2], [3, 4, 5]], r"edits: .*group, layer '3': inputs\.0\.0: .*integer"),
            ([[True, 1], [2, 3]], [[0, 1, 2], [3, 4, 5]], r"edits: .*group, layer '3': inputs\.0\.0: .*integer"),
            (3, [[0, 1, 2], [3, 4, 5]], r"edits: .*group, layer '3': inputs: .*list"),
        ],
    )
    def test_whose_groups_are_none_is_refused_with_what_is_wrong(
        self, tmp_path: Path, inputs: Any, filters: Any, message: str
    ) -> None:
        path = tmp_path / "plan.json"
        document = json.loads(WALK.plan_keeping({}, GROUPED).to_json())
        path.write_text(json.dumps(document))
        PruningPlan.load(path)
        document["edits"]["group"]["3"] = {"inputs": inputs, "filters": filters}
        path.write_text(json.dumps(document))
        with pytest.raises(PlanError, match=message) as caught:
            PruningPlan.load(path)
        assert "group, layer '3'" in str(caught.value)

    @pytest.mark.parametrize("planned", [{}, {"inputs": [[0]]}, {"inputs": [[0]], "filters": [[0]], "order": [0]}])
    def test_that_lacks_a_field_or_has_another_one_is_refused(self, tmp_path: Path, planned: dict[str, Any]) -> None:
        path = tmp_path / "plan.json"
        document = json.loads(WALK.plan_keeping({}, GROUPED).to_json())
        path.write_text(json.dumps({**document, "edits": {"group": {"3": planned}}}))
        with pytest.raises(PlanError, match=r"edits: .*group, layer '3': (inputs|filters|order): "):
            PruningPlan.load(path)

    def test_loads_as_what_was_saved_and_fits_other_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        kept = {"0": [0, 1, 2, 3, 4, 7], "3": [0, 1, 2, 3, 4, 5]}
        plan = WALK.plan_keeping(kept, GROUPED)
        plan.save(path)
        loaded = PruningPlan.load(path)
        assert loaded == plan
        assert groups_of(loaded) == GROUPED
        assert (loaded.groups, groups_of(loaded)["3"].reads) == ({"3": 2}, 3)
        other = LayerWalk.trace(chain(seed=7), small_images())
        small = loaded.apply(other.model)
        assert difference(other, loaded, small_images(3)) < 1e-4
        assert counted_macs(small, small_images()) == loaded.costs.macs
        assert counted_params(small) == loaded.costs.params

    def test_without_groups_does_not_name_them(self) -> None:
        assert b"edits" not in WALK.plan({"0": 4}).to_json()


class TestWhatDoesNotFit:
    def refused(self, plan: PruningPlan, model: nn.Module, message: str) -> None:
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(PlanError, match=message):
            plan.apply(model)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def with_groups(self, name: str, inputs: Lists, filters: Lists, **kept: Sequence[int]) -> PruningPlan:
        """A plan of the chain whose groups are not checked; kept channels by unit, as ``_0``."""
        plan = WALK.plan_keeping({unit.removeprefix("_"): channels for unit, channels in kept.items()}, {})
        return plan.model_copy(update={"edits": {"group": {name: GroupEdit(inputs=inputs, filters=filters)}}})

    def test_an_unknown_module_is_refused(self) -> None:
        plan = self.with_groups("nowhere", [[0], [1]], [[0], [1]])
        self.refused(plan, WALK.model, "an edit of kind 'group' for 'nowhere', a layer that the network does not have")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("7", "'7', but it is a Linear and no nn.Conv2d"), ("1", "'1', but it is a BatchNorm2d"), ("", "Sequential")],
    )
    def test_what_is_no_convolution_is_refused(self, name: str, reason: str) -> None:
        self.refused(self.with_groups(name, [[0], [1]], [[0], [1]]), WALK.model, reason)

    @pytest.mark.parametrize("count", [2, 8])
    def test_a_convolution_that_is_grouped_already_is_refused(self, count: int) -> None:
        model = body(lambda net, x: net.g(x), g=conv(8, 8, groups=count))
        plan = LayerWalk.trace(model, small_images()).plan({})
        grouped = {"g": GroupEdit(inputs=[[0], [1]], filters=[[0, 1, 2, 3], [4, 5, 6, 7]])}
        self.refused(
            plan.model_copy(update={"edits": {"group": grouped}}), model, f"'g', but it has {count} groups already"
        )

    @pytest.mark.parametrize(
        ("filters", "total"),
        [([[0, 1, 2], [3, 4, 5]], 6), ([[0, 2], [3, 4]], 4), ([[0, 2], [3, 9]], 4), ([[0], [2]], 2)],
    )
    def test_filters_that_are_not_the_outputs_that_stay_are_refused(self, filters: Lists, total: int) -> None:
        plan = self.with_groups("3", [[0], [1]], filters, _3=[0, 2, 3, 5])
        self.refused(plan, WALK.model, f"2 groups of '3' list {total} filters, .* not the 4 output channels")

    @pytest.mark.parametrize(("inputs", "outside"), [([[0, 1], [2, 7]], 7), ([[0, 1], [2, 99]], 99)])
    def test_inputs_that_do_not_stay_are_refused(self, inputs: Lists, outside: int) -> None:
        plan = self.with_groups("3", inputs, [[0, 1, 2], [3, 4, 5]], _0=[0, 1, 2, 3, 4])
        self.refused(
            plan, WALK.model, f"Group 1 of '3' reads input channel {outside}, .* not one of the 5 input channels that"
        )

    def test_groups_for_another_network_are_refused_by_the_module_that_differs(self) -> None:
        other = body(lambda _, x: x)
        self.refused(WALK.plan_keeping({}, GROUPED), other, "First module that differs")


HALVES = [[1, 2, 4, 6], [0, 3, 5, 7]]
"""Eight filters in an order of their own."""


class TestFiltersInAnotherOrder:
    @pytest.mark.parametrize("name", ["plain", "linear", "depthwise", "two readers", "grouped reader"])
    def test_are_followed_by_all_that_reads_them(self, name: str) -> None:
        parts: dict[str, nn.Module] = {"m": conv(8, 8), "n": nn.BatchNorm2d(8)}

        def run(net: Net, x: Tensor) -> Tensor:
            x = torch.relu(net.n(net.m(x)))
            if name == "depthwise":
                return torch.relu(net.p(net.e(net.d(x))))
            if name == "two readers":
                return net.p(x) + net.q(x)
            return net.p(x) if name == "grouped reader" else x

        if name == "depthwise":
            parts |= {"d": conv(8, 8, groups=8), "e": nn.BatchNorm2d(8), "p": conv(8, 8, 1)}
        elif name != "plain":
            parts |= {"p": conv(8, 8, 1), "q": conv(8, 8)}
        if name == "linear":
            torch.manual_seed(0)
            parts["fc"] = nn.Linear(8 * 64, 4)
            parts["a"] = conv(3, 8)
            model: Net = Net(lambda net, x: net.fc(run(net, torch.relu(net.a(x))).flatten(1)), **parts)
        else:
            model = body(run, **parts)
        walk = LayerWalk.trace(model, small_images())
        grouped = {"m": GroupEdit(inputs=[[0, 3, 5], [1, 3, 6]], filters=HALVES)}
        if name == "grouped reader":
            # The filters of this convolution are reordered, too; its inputs keep their numbers in the dense network.
            grouped["p"] = GroupEdit(inputs=[[1, 5], [0, 3], [2, 5], [6, 7]], filters=[[0, 7], [1, 6], [2, 5], [3, 4]])
        plan = walk.plan_keeping({}, grouped)
        assert difference(walk, plan, small_images(3)) < 1e-4
        small = plan.apply(model).get_submodule("m")
        assert isinstance(small, GatheredConv2d)
        order = [channel for half in HALVES for channel in half]
        torch.testing.assert_close(small.convolution.bias, model.m.bias[order])

    def test_are_followed_where_channels_are_cut_too(self) -> None:
        model = body(
            lambda net, x: torch.relu(net.p(net.d(net.m(x)))), 6, m=conv(8, 8), d=conv(8, 8, groups=8), p=conv(8, 6)
        )
        walk = LayerWalk.trace(model, small_images())
        kept = {"a": [0, 2, 3, 5, 7], "m": [1, 2, 4, 5, 6, 7]}
        grouped = {"m": GroupEdit(inputs=[[0, 5], [2, 5], [3, 7]], filters=[[4, 7], [1, 5], [2, 6]])}
        plan = walk.plan_keeping(kept, grouped)
        assert difference(walk, plan, small_images(3)) < 1e-4
        assert counted_macs(plan.apply(model), small_images()) == plan.costs.macs

    @staticmethod
    def concatenated() -> LayerWalk:
        both = body(lambda net, x: torch.cat([net.m(x), x], 1), 16, m=conv(8, 8))
        return LayerWalk.trace(both, small_images())

    def test_are_refused_where_a_reader_cannot_follow(self) -> None:
        plan = plan_of_groups(self.concatenated(), "m", [[0], [1]], HALVES)
        with pytest.raises(PlanError, match=r"filters of 'm' are not in ascending order, .* cannot follow"):
            plan.apply(self.concatenated().model)

    def test_are_applied_there_in_ascending_order(self) -> None:
        plan = plan_of_groups(self.concatenated(), "m", [[0, 3], [1, 2]], [[0, 1, 2, 3], [4, 5, 6, 7]])
        assert difference(self.concatenated(), plan, small_images(3)) < 1e-4

    def refused_or_exact(self, walk: LayerWalk, grouped: Mapping[str, GroupEdit], images: Tensor) -> None:
        plan = walk.plan_keeping({}, grouped)
        try:
            found = difference(walk, plan, images)
        except PlanError as error:
            assert "cannot follow" in str(error)  # noqa: PT017  (either is right)
        else:
            assert found < 1e-4

    @pytest.mark.parametrize(
        "out", [None, [range(8), range(8, 16)], [range(0, 16, 2), range(1, 16, 2)]], ids=["whole", "in order", "other"]
    )
    def test_of_one_writer_of_a_stream_are_refused_or_exact_whatever_the_others(self, out: list[range] | None) -> None:
        filters = {"up": [range(1, 16, 2), range(0, 16, 2)], **({} if out is None else {"out": out})}
        grouped = {
            name: GroupEdit(inputs=[[0, 3], [4, 7]], filters=[list(own) for own in groups])
            for name, groups in filters.items()
        }
        self.refused_or_exact(toy_walk(), grouped, image_set(3).images)

    @pytest.mark.parametrize(
        "model",
        [
            Net(lambda net, x: net.m(torch.relu(net.a(x))), a=conv(3, 8), m=conv(8, 8)),
            body(lambda net, x: net.m(x).view(-1, 2, 4, 8, 8).transpose(1, 2).flatten(1, 2), m=conv(8, 8)),
            body(lambda net, x: net.g(net.m(x)), 6, m=conv(8, 8), g=conv(8, 6, groups=2)),
        ],
        ids=["output", "shuffle", "halves"],
    )
    def test_are_refused_or_exact_where_their_places_mean_something(self, model: Net) -> None:
        walk = LayerWalk.trace(model.eval(), small_images())
        self.refused_or_exact(walk, {"m": GroupEdit(inputs=[[0, 3], [4, 7]], filters=HALVES)}, small_images(3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2}, {"padding_mode": "reflect"}, {"dilation": 2}, {"kernel_size": 1, "padding": 0}],
    ids=str,
)
@pytest.mark.parametrize("filters", [[[0, 1, 2, 3], [4, 5, 6, 7]], HALVES], ids=["in order", "reordered"])
def test_every_kind_of_convolution_is_the_masked_one(bias: bool, settings: dict[str, Any], filters: Lists) -> None:
    convolution = nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, **settings, "bias": bias})
    walk = LayerWalk.trace(body(lambda net, x: torch.relu(net.m(x)), m=convolution), small_images())
    plan = plan_of_groups(walk, "m", [[0, 1, 6], [1, 2, 3]], filters)
    assert difference(walk, plan, small_images(3)) < 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_those_of_the_dense_network(training: bool) -> None:
    walk = toy_walk(toy_resnet().train(training))
    small = toy_plan(walk).apply(walk.model)
    assert {module.training for module in small.modules()} == {training}


def test_groups_that_read_their_own_share_in_order_need_no_gather() -> None:
    plan = plan_of_groups(WALK, "3", [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 2], [3, 4, 5]])
    small = plan.apply(WALK.model).get_submodule("3")
    assert type(small) is nn.Conv2d
    assert small.groups == 2
    assert difference(WALK, plan, small_images(3)) < 1e-4


def test_one_group_reads_fewer_inputs_than_there_are() -> None:
    plan = plan_of_groups(WALK, "3", [[1, 2, 6]], [[0, 1, 2, 3, 4, 5]])
    assert difference(WALK, plan, small_images(3)) < 1e-4
    assert plan.costs.macs == WALK.macs() - 5 * 6 * 9 * 64


def test_a_network_that_is_a_single_convolution_can_be_grouped() -> None:
    torch.manual_seed(0)
    model = conv(4, 4).eval()
    walk = LayerWalk.trace(model, torch.zeros(1, 4, 8, 8))
    plan = plan_of_groups(walk, "", [[0, 3], [1, 2]], [[0, 1], [2, 3]])
    assert difference(walk, plan, torch.randn(2, 4, 8, 8)) < 1e-5


def test_costs_of_edits_of_unknown_layers_are_refused() -> None:
    edit = GroupEdit(inputs=[[0], [1]], filters=[[0], [1]])
    for cost in (WALK.macs, WALK.params):
        with pytest.raises(UserError, match=r"There is no layer '4' to edit: known: "):
            cost({}, {"4": edit})


def test_costs_of_groups_follow_from_what_each_filter_reads() -> None:
    thirds = GroupEdit(inputs=[[0, 1], [2, 3], [4, 5]], filters=[[0, 1], [2, 3], [4, 5]])
    assert WALK.macs({"0": 6}, {"3": thirds}) == WALK.macs({"0": 2}) + 4 * 3 * 9 * 64


def repair_of(walk: LayerWalk, images: Tensor, ridge: float = 1e-3) -> LeastSquares:
    names = [member.module for unit in walk.units for member in unit.members if member.side == "in"]
    return LeastSquares(walk.model, names, [(images, torch.zeros(len(images)))], (), ridge)


def toy_plan(walk: LayerWalk) -> PruningPlan:
    """A plan that cuts widths and groups every convolution that may be grouped; two convolutions are reordered."""
    generator = np.random.default_rng(3)

    def some(channels: Sequence[int], count: int, size: int) -> Lists:
        return [sorted(generator.permutation(channels)[:size].tolist()) for _ in range(count)]

    kept = {"stem": [0, 1, 3, 4, 6, 7], "down": [0, 2, 3, 5, 6, 8, 9, 11], "mid": list(range(0, 24, 2))}
    blocks = [list(range(number, number + 4)) for number in range(0, 16, 4)]
    grouped = {
        "down": GroupEdit(inputs=some(kept["stem"], 2, 4), filters=[[2, 3, 8, 11], [0, 5, 6, 9]]),
        "up": GroupEdit(inputs=some(kept["down"], 4, 3), filters=blocks),
        "mid": GroupEdit(inputs=some(range(16), 3, 5), filters=[[0, 8, 16, 22], [2, 6, 14, 20], [4, 10, 12, 18]]),
        "out": GroupEdit(inputs=some(kept["mid"], 4, 2), filters=blocks),
    }
    return walk.plan_keeping(kept, grouped)


def test_a_network_with_cut_and_reordered_units_is_the_masked_one_and_costs_what_it_says() -> None:
    walk = toy_walk()
    plan = toy_plan(walk)
    assert difference(walk, plan, image_set(4).images) < 1e-4
    small = plan.apply(walk.model)
    assert counted_macs(small, image_set(1).images) == plan.costs.macs < 0.3 * plan.costs.dense_macs
    assert counted_params(small) == plan.costs.params


@pytest.mark.parametrize("repaired", [False, True], ids=["plain", "repaired"])
@pytest.mark.parametrize("folded", [False, True], ids=["kept", "folded"])
@torch.no_grad()
def test_a_reshapable_network_gives_what_the_plan_s_network_gives(repaired: bool, folded: bool) -> None:
    model, images = toy_resnet(), image_set(16, 3).images
    walk = toy_walk(model)
    plan = toy_plan(walk)
    repair = repair_of(walk, images) if repaired else None
    reshapable = ReshapableNetwork(
        model, walk.units, pairs=find_fold_pairs(model, images[:2]), folded=folded, repair=repair
    )
    expected = apply_plan(plan, model, repair)(images)
    if repaired:
        assert (expected - plan.apply(model)(images)).abs().max() > 1e-2 * expected.abs().max()
    for _ in range(2):
        torch.testing.assert_close(reshapable.cut(plan.kept, plan.by_layer)(images), expected, rtol=1e-4, atol=1e-5)
        reshapable.settle()
        torch.testing.assert_close(reshapable.model(images), expected, rtol=1e-4, atol=1e-4)
        # The network of the next plan has no trace of the groups.
        ungrouped = plan.model_copy(update={"edits": {"group": {}}})
        whole = apply_plan(ungrouped, model, repair)(images)
        torch.testing.assert_close(reshapable.cut(plan.kept)(images), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reshapable.cut({})(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("ridge", [1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_fitted_groups_are_no_farther_from_the_dense_layer_than_masked_ones(bias: bool, ridge: float) -> None:
    model = body(lambda net, x: torch.relu(net.m(x)), m=conv(8, 8, bias=bias)).eval()
    walk, images = LayerWalk.trace(model, small_images()), small_images(24, seed=2)
    read = torch.relu(model.bn(model.a(images)))
    dense = model.m(read)
    fit = repair_of(walk, images, ridge)
    plan = plan_of_groups(walk, "m", [[0, 1, 6], [1, 2, 3]], HALVES)
    order = [channel for half in HALVES for channel in half]
    errors = {}
    for name, small in (("masked", plan.apply(model)), ("fitted", apply_plan(plan, model, fit))):
        # Compare filter by filter, so that no filter makes up for another.
        errors[name] = (small.get_submodule("m")(read) - dense[:, order]).square().mean((0, 2, 3))
    assert (errors["fitted"] <= errors["masked"] * (1 + 1e-5)).all()
    assert errors["fitted"].sum() < 0.95 * errors["masked"].sum()


@torch.no_grad()
def test_each_group_is_fitted_on_what_it_alone_reads() -> None:
    model = body(lambda net, x: torch.relu(net.m(x)), m=nn.Conv2d(8, 8, 3)).eval()
    walk, images = LayerWalk.trace(model, small_images()), small_images(24, seed=2)
    fit = repair_of(walk, images, 1e-5)
    reads = [[0, 1, 6], [1, 2, 3]]
    small = apply_plan(plan_of_groups(walk, "m", reads, HALVES), model, fit).get_submodule("m")
    for number, (inputs, filters) in enumerate(zip(reads, HALVES, strict=True)):
        alone = fit.tensors("m", {"in": np.array(inputs), "out": np.array(filters)})
        rows = slice(4 * number, 4 * number + 4)
        torch.testing.assert_close(small.convolution.weight[rows], alone["weight"])
        torch.testing.assert_close(small.convolution.bias[rows], alone["bias"])


@pytest.mark.parametrize("twice", ["crelu", "pools"])
def test_filters_in_another_order_are_exact_where_a_reader_has_each_channel_twice(twice: str) -> None:
    def forward(net: Net, images: Tensor) -> Tensor:
        x = net.b(torch.relu(net.a(images)))
        if twice == "crelu":
            return net.fc(torch.relu(net.z(torch.cat([torch.relu(x), torch.relu(-x)], 1))).mean((2, 3)))
        return net.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    torch.manual_seed(0)
    parts = {"a": conv(3, 8), "b": conv(8, 8)}
    if twice == "crelu":
        parts |= {"z": conv(16, 6), "fc": nn.Linear(6, 5)}
    else:
        parts |= {"head": nn.Linear(16, 5)}
    model = Net(forward, **parts).eval()
    walk = LayerWalk.trace(model, small_images())
    order = [[1, 3, 5], [0, 4, 6]]
    # Each group reads everything, so only the order matters.
    groups = {"b": GroupEdit(inputs=[list(range(8))] * 2, filters=order)}
    kept = {"b": sorted(order[0] + order[1])}
    if not next(unit for unit in walk.units if unit.name == "b").free:
        pytest.skip("the unit is not cut here")
    mixed, plain = walk.plan_keeping(kept, groups), walk.plan_keeping(kept, {})
    with torch.no_grad():
        torch.testing.assert_close(mixed.apply(model)(small_images()), plain.apply(model)(small_images()))


def test_a_convolution_with_two_names_is_not_grouped() -> None:
    torch.manual_seed(0)
    shared = conv(8, 8)
    model = nn.Sequential(conv(3, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), conv(8, 4)).eval()
    walk = LayerWalk.trace(model, small_images())
    plan = walk.plan_keeping({}, {"2": GroupEdit(inputs=[[0, 1], [2, 3]], filters=[[0, 1, 2, 3], [4, 5, 6, 7]])})
    with pytest.raises(PlanError, match="it has more than one name in the network"):
        plan.apply(model)


def test_a_reader_that_has_slots_of_its_own_refuses_another_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8, groups=2), nn.ReLU(), conv(8, 4)
    ).eval()
    walk = LayerWalk.trace(model, small_images())
    groups = {"2": GroupEdit(inputs=[list(range(4)), list(range(4))], filters=[[0, 2, 4, 6], [1, 3, 5, 7]])}
    document = json.loads(walk.plan_keeping({}, groups).to_json())
    document["version"] = 2  # which has no digest of the members
    del document["digest"]
    for unit in document["units"]:
        if unit["name"] == "2":
            unit["channels"], unit["kept"] = 8, list(range(8))
            unit["members"] = [{"module": "2", "side": "out"}, {"module": "4", "side": "in"}]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match="not in ascending order"):
        PruningPlan.load(tmp_path / "plan.json").apply(model)


def test_the_difference_of_two_plans_gives_the_group_counts_of_layers_whose_groups_differ() -> None:
    walk = toy_walk()

    def plan(groups: int, reads: int) -> PruningPlan:
        filters = np.arange(16).reshape(groups, -1).tolist()
        return plan_of_groups(walk, "up", [list(range(reads))] * groups, filters)

    assert plan(2, 6).diff(plan(4, 3)) == {"up: group": (2, 4)}
    assert plan(2, 6).diff(plan(2, 3)) == {"up: group": (2, 2)}
    assert plan(2, 6).diff(plan(2, 6)) == {}
    assert plan(2, 6).diff(walk.plan({"stem": 4})) == {"stem": (8, 4), "up: group": (2, None)}
