"""Stripes of a plan: invalid ones are refused in words, and the applied plan equals the masked network."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import image_set, toy_resnet, toy_walk
from zoo import Net, body, chain, channels_zeroed, conv, outputs, relative_difference, small_images

from prune_env import LayerWalk, PruningPlan
from prune_env.batch_norm.folding import find_fold_pairs
from prune_env.common.errors import PlanError
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.granularity.stripe import StripedConv2d, StripeEdit, why_not_striped
from prune_env.plan import apply_plan
from prune_env.repair.least_squares import LeastSquares
from prune_env.testing.counts import counted_macs, counted_params

WALK = LayerWalk.trace(chain(), small_images())
"""Units ``0`` of 8 channels and ``3`` of 6; the linear layer ``7`` reads 16 pixels of each of the latter."""

SIX = [[0, 4], [], [1, 3, 4, 5, 7], list(range(9)), [8], [2, 6]]
STRIPES = {"3": StripeEdit(filters=[0, 1, 2, 3, 4, 5], positions=SIX)}


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


def masked(model: nn.Module, edits: Mapping[str, StripeEdit]) -> nn.Module:
    """The dense network, with zeros in every stripe that goes."""
    found = copy.deepcopy(model)
    for name, edit in edits.items():
        weight = found.get_submodule(name).get_parameter("weight")
        mask = torch.zeros_like(weight).flatten(2)
        for channel, positions in zip(edit.filters, edit.positions, strict=True):
            mask[channel, :, positions] = 1.0
        weight.data.mul_(mask.reshape(weight.shape))
    return found


def difference(walk: LayerWalk, plan: PruningPlan, images: Tensor) -> float:
    """The relative difference between the plan's network and the masked network."""
    expected = masked(walk.model, stripes_of(plan))
    with channels_zeroed(expected, walk.units, plan.kept):
        wanted = outputs(expected, images)
    return relative_difference(outputs(plan.apply(walk.model), images), wanted)


def stripes_of(plan: PruningPlan) -> dict[str, StripeEdit]:
    return {name: edit for name, edit in plan.by_layer.items() if isinstance(edit, StripeEdit)}


class TestAFile:
    @pytest.mark.parametrize(
        ("filters", "positions", "message"),
        [
            ([0, 1], [[0]], "2 filters are given, and positions for 1"),
            ([1, 0], [[0], [1]], "filters must be output channels in ascending order, each once"),
            ([0, 0], [[0], [1]], "filters must be output channels in ascending order, each once"),
            ([-1, 0], [[0], [1]], "filters must be output channels in ascending order, each once"),
            ([0, 5], [[0], [2, 1]], "filter 5: positions must be kernel positions in ascending order, each once"),
            ([0, 5], [[1, 1], [2]], "filter 0: positions must be kernel positions in ascending order, each once"),
            ([0, 5], [[-1, 1], [2]], "filter 0: positions must be kernel positions in ascending order, each once"),
            ([0, 5], [[], []], "no filter has a position; at least one stripe must stay"),
            ([], [], r"filters: .*at least 1"),
            ([0.5], [[0]], r"filters\.0: .*integer"),
            ([0], [[True]], r"positions\.0\.0: .*integer"),
            ([0], [0], r"positions\.0: .*list"),
            ([0], 3, r"positions: .*list"),
        ],
    )
    def test_whose_stripes_are_none_is_refused_with_what_is_wrong(
        self, tmp_path: Path, filters: Any, positions: Any, message: str
    ) -> None:
        self.refused(tmp_path, {"filters": filters, "positions": positions}, message)

    @pytest.mark.parametrize(
        "planned", [{}, {"filters": [0]}, {"filters": [0], "positions": [[0]], "order": [0]}, {"positions": [[0]]}]
    )
    def test_that_lacks_a_field_or_has_another_one_is_refused(self, tmp_path: Path, planned: dict[str, Any]) -> None:
        self.refused(tmp_path, planned, "(filters|positions|order): ")

    @staticmethod
    def refused(folder: Path, planned: dict[str, Any], message: str) -> None:
        path = folder / "plan.json"
        document = json.loads(WALK.plan_keeping({}, STRIPES).to_json())
        document["edits"]["stripe"]["3"] = planned
        path.write_text(json.dumps(document))
        with pytest.raises(PlanError, match=f"stripe, layer '3': (Value error, )?{message}"):
            PruningPlan.load(path)

    def test_loads_as_what_was_saved_and_fits_other_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        edit = StripeEdit(filters=[0, 2, 3, 5], positions=[SIX[0], SIX[2], SIX[3], []])
        plan = WALK.plan_keeping({"0": [0, 1, 2, 3, 4, 7], "3": [0, 2, 3, 5]}, {"3": edit})
        plan.save(path)
        loaded = PruningPlan.load(path)
        assert loaded == plan
        assert stripes_of(loaded) == {"3": edit}
        assert edit.stripes == 16
        other = LayerWalk.trace(chain(seed=7), small_images())
        assert difference(other, loaded, small_images(3)) < 1e-4
        small = loaded.apply(other.model)
        assert type(small.get_submodule("3")) is StripedConv2d
        assert counted_macs(small, small_images()) == loaded.costs.macs
        assert counted_params(small) == loaded.costs.params


def several() -> nn.Sequential:
    """A layer of each kind; 0, 2 and 12 can lose stripes."""
    shared = conv(8, 8)
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 8, groups=2), nn.ReLU(),
        conv(8, 8, 1), shared, shared, conv(8, 8, padding_mode="circular"), conv(8, 4), nn.BatchNorm2d(4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("4", "it is depthwise"),
        ("6", "it has 2 groups"),
        ("8", "its kernel is 1 x 1, so that a stripe is a whole filter"),
        ("9", "it has more than one name in the network"),
        ("11", "its padding mode is 'circular', and only 'zeros' is supported"),
        ("13", "it is a BatchNorm2d and no nn.Conv2d"),
        ("2", None),
        ("12", None),
    ],
)
def test_a_layer_that_cannot_lose_stripes_is_refused_with_the_reason(name: str, reason: str | None) -> None:
    model = several()
    assert why_not_striped(model, name) == reason
    if reason is not None:
        edit = StripeEdit(filters=[0], positions=[[0]])
        with pytest.raises(PlanError, match=f"The plan cuts stripes of '{name}', but {reason}"):
            edit.validate_on(model, name, np.arange(8), np.arange(8))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            StripeEdit(filters=[0, 1], positions=[[0], [1]]),
            "stripes of '3' are those of 2 filters, which are not the 6 output channels",
        ),
        (
            StripeEdit(filters=[0, 1, 2, 3, 4, 6], positions=SIX),
            "stripes of '3' are those of 6 filters, which are not the 6 output channels",
        ),
        (
            StripeEdit(filters=[0, 1, 2, 3, 4, 5], positions=[*SIX[:5], [2, 9]]),
            "Filter 5 of '3' keeps position 9, but the kernel has only the positions 0 to 8",
        ),
    ],
)
def test_stripes_that_do_not_fit_the_layer_are_refused_by_its_name(edit: StripeEdit, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        WALK.plan_keeping({}, {"3": edit}).apply(WALK.model)


def test_a_layer_that_keeps_every_stripe_stays_an_ordinary_convolution() -> None:
    edit = StripeEdit(filters=list(range(6)), positions=[list(range(9))] * 6)
    plan = WALK.plan_keeping({}, {"3": edit})
    assert type(plan.apply(WALK.model).get_submodule("3")) is nn.Conv2d
    assert plan.costs.macs == WALK.macs()
    assert difference(WALK, plan, small_images(3)) < 1e-6


def test_a_network_that_is_a_single_convolution_can_lose_stripes() -> None:
    model = conv(4, 3).eval()
    walk = LayerWalk.trace(model, torch.zeros(1, 4, 8, 8))
    plan = walk.plan_keeping({}, {"": StripeEdit(filters=[0, 1, 2], positions=[[0], [], [3, 4]])})
    assert difference(walk, plan, torch.randn(2, 4, 8, 8)) < 1e-5
    assert (plan.costs.macs, plan.costs.params) == (3 * 4 * 64, 3 * 4 + 3)


def drawn(filters: list[int], kernel: int, generator: np.random.Generator) -> StripeEdit:
    """Random positions; the first filter has at least one, and the last one none."""
    stays = generator.random((len(filters), kernel)) < 0.5
    stays[0, 0], stays[-1] = True, False
    return StripeEdit(filters=filters, positions=[np.flatnonzero(row).tolist() for row in stays])


def toy_plan(walk: LayerWalk, seed: int = 3) -> PruningPlan:
    """A plan that cuts widths, and stripes of every convolution that has any; one filter of each has none left."""
    generator = np.random.default_rng(seed)
    kept = {"stem": [0, 1, 3, 4, 6, 7], "down": [0, 2, 3, 5, 6, 8, 9, 11], "mid": list(range(0, 24, 2))}
    filters = {"stem": (kept["stem"], 9), "down": (kept["down"], 25), "up": (list(range(16)), 9)}
    edits = {name: drawn(own, kernel, generator) for name, (own, kernel) in filters.items()}
    return walk.plan_keeping(kept, {**edits, "out": drawn(list(range(16)), 9, generator)})


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_network_with_cut_units_is_the_masked_one_and_costs_what_it_says(seed: int) -> None:
    walk = TOY
    plan = toy_plan(walk, seed)
    assert difference(walk, plan, image_set(4).images) < 1e-4
    small = plan.apply(walk.model)
    assert counted_macs(small, image_set(1).images) == plan.costs.macs < plan.costs.dense_macs
    assert counted_params(small) == plan.costs.params


TOY = toy_walk()


def repair_of(walk: LayerWalk, images: Tensor) -> LeastSquares:
    names = [member.module for unit in walk.units for member in unit.members if member.side == "in"]
    return LeastSquares(walk.model, names, [(images, torch.zeros(len(images)))], (), 1e-3)


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
        torch.testing.assert_close(reshapable.cut(plan.kept, plan.by_layer)(images), expected, rtol=1e-4, atol=1e-4)
        whole = apply_plan(plan.model_copy(update={"edits": {}}), model, repair)(images)
        torch.testing.assert_close(reshapable.cut(plan.kept)(images), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reshapable.cut({})(images), model(images), rtol=0, atol=0)


def test_a_filter_without_stripes_computes_its_bias_in_a_residual_stream() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return torch.relu(x + net.m(x))

    model = body(forward, m=conv(8, 8)).eval()
    walk = LayerWalk.trace(model, small_images())
    edit = StripeEdit(filters=list(range(8)), positions=[[], [4], [0, 8], [], [], [], [1], []])
    plan = walk.plan_keeping({}, {"m": edit})
    assert difference(walk, plan, small_images(3)) < 1e-5
    with torch.no_grad():
        found = plan.apply(model).get_submodule("m")(torch.randn(2, 8, 8, 8))
    bias = model.get_submodule("m").get_parameter("bias").detach()
    assert torch.equal(found[:, 0], bias[0].expand(2, 8, 8))


@pytest.mark.parametrize("training", [True, False])
def test_the_plan_s_network_keeps_the_training_mode_and_leaves_the_dense_network_alone(training: bool) -> None:
    model = copy.deepcopy(WALK.model).train(training)
    before = copy.deepcopy(model.state_dict())
    small = WALK.plan_keeping({}, STRIPES).apply(model)
    assert {module.training for module in small.modules()} == {training}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_difference_of_two_plans_counts_the_stripes_of_layers_whose_stripes_differ() -> None:
    walk, filters = toy_walk(), list(range(16))

    def plan(positions: list[int], widths: Mapping[str, list[int]] | None = None) -> PruningPlan:
        return walk.plan_keeping(widths or {}, {"up": StripeEdit(filters=filters, positions=[positions] * 16)})

    few, many = plan([0]), plan([0, 1, 2, 3])
    assert few.diff(many) == {"up: stripe": (16, 64)}
    assert few.diff(plan([0])) == {}
    assert few.diff(plan([8])) == {"up: stripe": (16, 16)}
    assert few.diff(walk.plan({})) == {"up: stripe": (16, None)}
    assert walk.plan({}).diff(few) == {"up: stripe": (None, 16)}
    assert few.diff(plan([0, 1], {"stem": [0, 3]})) == {"stem": (8, 2), "up: stripe": (16, 32)}
