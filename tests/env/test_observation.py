"""Observations: they describe the next unit, are bounded, and do not depend on the network's scale."""

from collections.abc import Mapping
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy import image_set, toy_problem, toy_resnet, toy_walk
from zoo import Net, body, conv, small_images, traced

from prune_env import LayerWalk, PruningEnv
from prune_env.budget import Budget
from prune_env.env.observation import DYNAMIC, FEATURES, STATIC, FloatArray, Observer, UnitEvidence
from prune_env.env.problem import PruningProblem
from prune_env.protection.sensitivity import LayerEvidence

UNITS = ("stem", "down", "up", "mid")


def named(observation: FloatArray) -> dict[str, float]:
    return dict(zip(FEATURES, observation.tolist(), strict=True))


def walked(problem: PruningProblem, actions: list[float]) -> list[tuple[str, dict[str, float]]]:
    """An episode: for each action the decided unit, and the observation before the action."""
    env = PruningEnv(problem=problem)
    observation, _ = env.reset()
    seen = []
    for action in actions:
        found = named(observation)
        observation, *_, info = env.step(np.array([action], dtype=np.float32))
        seen.append((info["unit"], found))
    return seen


def evidence(unit: str, share: float, mean: float) -> LayerEvidence:
    return LayerEvidence(
        layer=unit, unit=unit, height=8, width=8, low_rank_share=share, mean_rank=mean, histogram=(0,) * 10
    )


def observer(
    walk: LayerWalk, rises: Mapping[str, float] = {}, ranks: Mapping[str, LayerEvidence] = {}, **settings: float
) -> Observer:
    return Observer(walk, Budget(walk, "macs", 0.5, **settings), UnitEvidence(ranks, rises), (8, 8))


def statics(walk: LayerWalk, **settings: float) -> dict[str, dict[str, float]]:
    found = observer(walk, **settings).static
    return {unit.name: dict(zip(STATIC, row.tolist(), strict=True)) for unit, row in zip(walk.free, found, strict=True)}


class TestTheObservationOfAStep:
    def test_holds_the_features_of_the_unit_that_the_action_is_for(self) -> None:
        model = toy_resnet()
        seen = walked(toy_problem(toy_walk(model)), [0.3, -0.5, 0.1, 0.7])
        assert [unit for unit, _ in seen] == list(UNITS)
        for number, (unit, found) in enumerate(seen):
            layer = model.get_submodule(unit)
            assert found["depth"] == pytest.approx(number / 3)
            assert found["output_channels"] == pytest.approx(log2(layer.out_channels) / 12)
            assert found["input_channels"] == pytest.approx(log2(layer.in_channels) / 12)
            assert found["kernel"] == pytest.approx(layer.kernel_size[0] / 7)
            assert found["stride"] == pytest.approx(layer.stride[0] / 4)
            assert found["height"] == found["width"] == {"stem": 1.0}.get(unit, 0.5)
            assert found["producers"] == pytest.approx(log2({"up": 3}.get(unit, 1)) / 6)

    def test_tells_any_two_units_apart_by_their_static_features(self) -> None:
        rows = observer(toy_walk()).static
        assert len({tuple(row) for row in rows[:, 1:].tolist()}) == len(rows)

    def test_holds_the_evidence_of_the_same_unit(self) -> None:
        ranks = {"stem": evidence("stem", 0.1, 0.9), "up": evidence("up", 0.3, 0.7)}
        found = observer(toy_walk(), ranks=ranks).static
        pairs = found[:, [STATIC.index("low_rank_share"), STATIC.index("mean_rank")]]
        assert pairs.tolist() == [pytest.approx(pair) for pair in [(0.1, 0.9), (0, 0), (0.3, 0.7), (0, 0)]]

    def test_passes_over_units_that_are_never_decided(self) -> None:
        walk = toy_walk(protect={"down": "why"})
        seen = walked(toy_problem(walk, keep=0.7), [0.0, 0.0, 0.0])
        assert [unit for unit, _ in seen] == ["stem", "up", "mid"]
        assert [found["depth"] for _, found in seen] == [0.0, 0.5, 1.0]
        assert seen[1][1]["output_channels"] == pytest.approx(log2(16) / 12)

    def test_names_every_feature_once(self) -> None:
        assert len(set(FEATURES)) == len(FEATURES) == len(STATIC) + len(DYNAMIC)
        env = PruningEnv(problem=toy_problem())
        assert env.observation_space.shape == (len(FEATURES),)
        assert env.reset()[0].dtype == np.float32


class TestReducedAndRest:
    """AMC's released code computes ``rest`` from weights at the first step and from MACs afterwards."""

    @pytest.mark.parametrize("metric", ["macs", "params"])
    @pytest.mark.parametrize("actions", [[0.0] * 4, [-1.0, 1.0, -0.4, 0.2]])
    def test_obey_one_formula_from_the_first_step_to_the_last(self, metric: str, actions: list[float]) -> None:
        walk = toy_walk()
        cost = walk.macs if metric == "macs" else walk.params
        problem = toy_problem(walk, metric=metric, min_keep=0.25)
        least = problem.budget.names(problem.budget.least)
        removable = {name: cost() - cost({name: least[name]}) for name in UNITS}
        decided: dict[str, int] = {}
        env = PruningEnv(problem=problem)
        observation, _ = env.reset()
        for number, action in enumerate(actions):
            found = named(observation)
            later = sum(removable[name] for name in UNITS[number + 1 :])
            assert found["rest"] == pytest.approx(later / sum(removable.values()), abs=1e-6)
            assert found["reduced"] == pytest.approx(1 - cost(decided) / cost(), abs=1e-6)
            observation, *_, info = env.step(np.array([action], dtype=np.float32))
            decided[info["unit"]] = info["width"]
        assert named(observation)["reduced"] == pytest.approx(1 - cost(decided) / cost(), abs=1e-6)

    def test_start_at_nothing_reduced_and_end_with_nothing_left(self) -> None:
        seen = walked(toy_problem(), [0.0] * 4)
        assert seen[0][1]["reduced"] == 0.0
        assert seen[-1][1]["rest"] == 0.0
        rests = [found["rest"] for _, found in seen]
        assert rests == sorted(rests, reverse=True)


class TestThePreviousAndTheEvenKeep:
    def test_are_the_width_that_came_of_the_last_action_and_what_is_left(self) -> None:
        problem = toy_problem(keep=0.4)
        env = PruningEnv(problem=problem)
        observation, _ = env.reset()
        previous, widths = 1.0, problem.budget.least.copy()
        for number in range(4):
            found = named(observation)
            undecided = (np.arange(4) >= number).astype(np.int64)
            assert found["previous_keep"] == pytest.approx(previous)
            assert found["even_keep"] == pytest.approx(problem.budget.even_ratio(widths, undecided))
            # Ask for more than the budget allows: the next observation shows the granted width, not the requested one.
            observation, *_, info = env.step(np.array([1.0], dtype=np.float32))
            widths[number] = info["width"]
            previous = info["width"] / int(problem.budget.channels[number])
        assert previous < 1.0


class TestEveryFeature:
    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_stays_within_its_bounds_whatever_the_actions(self, data: st.DataObject) -> None:
        problem = data.draw(st.sampled_from(TASKS))
        env = PruningEnv(problem=problem, action=data.draw(st.sampled_from(["share", "ratio"])))
        actions = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([-1.0, 0.0, 1.0]))
        observation, _ = env.reset()
        assert observation in env.observation_space
        for _ in problem.budget.units:
            observation, *_ = env.step(np.array([data.draw(actions)], dtype=np.float32))
            assert observation in env.observation_space
            assert np.isfinite(observation).all()

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "cifar_resnet56"])
    def test_stays_within_its_bounds_on_real_networks(self, name: str) -> None:
        walk = traced(name).walk
        static = Observer(walk, Budget(walk, "macs", 0.5), UnitEvidence({}, {}), (64, 64)).static
        assert ((static >= -1) & (static <= 1)).all()

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.floats(-10, 1e6), min_size=4, max_size=4))
    def test_of_the_loss_rises_stays_within_its_bounds_and_in_order(self, rises: list[float]) -> None:
        found = observer(WALK, rises=dict(zip(UNITS, rises, strict=True))).static[:, STATIC.index("sensitivity")]
        assert ((found >= -1) & (found <= 1)).all()
        for one in range(4):
            for other in range(4):
                assert not (rises[one] < rises[other] and found[one] > found[other])


WALK = toy_walk()
TASKS = [
    toy_problem(WALK, reward_set=image_set(4)),
    toy_problem(WALK, reward_set=image_set(4), metric="params", keep=0.3, round_to=4, probe_keep=0.25),
    toy_problem(WALK, reward_set=image_set(4), keep=1.0, min_keep=1.0),
]


class TestTheNetworksScale:
    """The same architecture with twice the channels, to which a policy must be transferable."""

    def test_does_not_change_what_is_not_a_number_of_channels(self) -> None:
        small, large = (statics(toy_walk(toy_resnet(c)), min_keep=0.25) for c in (16, 32))
        for unit in UNITS:
            for feature in ("depth", "height", "width", "stride", "kernel", "producers"):
                assert small[unit][feature] == large[unit][feature]
            assert small[unit]["cost_share"] == pytest.approx(large[unit]["cost_share"], abs=0.02)
            assert 0.0 < small[unit]["cost_share"] < 1.0

    def test_moves_the_channels_by_one_doubling(self) -> None:
        small, large = (statics(toy_walk(toy_resnet(c))) for c in (16, 32))
        for unit in UNITS:
            assert large[unit]["output_channels"] - small[unit]["output_channels"] == pytest.approx(1 / 12)

    def test_does_not_change_what_the_episode_looks_like(self) -> None:
        actions = [0.3, -0.6, 0.2, 0.1]
        small, large = (walked(toy_problem(toy_walk(toy_resnet(c)), min_keep=0.25), actions) for c in (16, 32))
        for (_, one), (_, other) in zip(small, large, strict=True):
            for feature in DYNAMIC:
                # Rounding to one of 16 channels.
                assert one[feature] == pytest.approx(other[feature], abs=1 / 16)

    def test_does_not_change_with_the_size_of_the_images(self) -> None:
        features = []
        for side in (8, 16):
            walk = LayerWalk.trace(toy_resnet(), image_set(1, side=side).images)
            rows = Observer(walk, Budget(walk, "macs", 0.5), UnitEvidence({}, {}), (side, side)).static
            features.append(rows)
        assert features[0] == pytest.approx(features[1], abs=1e-3)


class TestTheCostShare:
    def test_grows_with_what_cutting_the_unit_alone_saves(self) -> None:
        walk = toy_walk()
        found = statics(walk)
        saved = {name: walk.macs() - walk.macs({name: 1}) for name in UNITS}
        assert sorted(UNITS, key=lambda name: found[name]["cost_share"]) == sorted(UNITS, key=saved.get)

    def test_is_a_half_for_a_unit_that_saves_its_even_part_of_the_whole(self) -> None:
        walk = toy_walk()
        found = statics(walk, min_keep=0.25)
        for name, least in {"stem": 2, "down": 3, "up": 4, "mid": 6}.items():
            saved = 1 - walk.macs({name: least}) / walk.macs()
            assert (found[name]["cost_share"] > 0.5) == (saved > 1 / 4)
            assert found[name]["cost_share"] == pytest.approx(4 * saved / (1 + 4 * saved))
        assert np.ptp([found[name]["cost_share"] for name in UNITS]) > 0.05


class TestTheSensitivity:
    def test_orders_the_units_by_how_far_the_loss_rises(self) -> None:
        rises = {"stem": 2.0, "down": 0.01, "up": 0.5, "mid": -0.1}
        found = observer(toy_walk(), rises=rises).static[:, STATIC.index("sensitivity")]
        assert np.argsort(found).tolist() == [3, 1, 2, 0]
        assert found.min() < 0 < found.max()

    @pytest.mark.parametrize("rises", [{}, dict.fromkeys(UNITS, 0.3)], ids=["not measured", "all alike"])
    def test_says_nothing_where_there_is_nothing_to_say(self, rises: dict[str, float]) -> None:
        found = observer(toy_walk(), rises=rises).static[:, STATIC.index("sensitivity")]
        assert found.tolist() == [0.0] * 4

    def test_is_neutral_for_a_unit_that_was_not_measured(self) -> None:
        found = observer(toy_walk(), rises={"stem": 2.0, "up": 0.1}).static[:, STATIC.index("sensitivity")]
        assert (found[1], found[3]) == (0.0, 0.0)
        assert found[0] > 0 > found[2]


def test_a_network_with_one_unit_can_be_observed() -> None:
    walk = LayerWalk.trace(body(lambda _, x: x), small_images(), protect={"z": "why"})
    (row,) = Observer(walk, Budget(walk, "macs", 0.5), UnitEvidence({}, {}), (8, 8)).static
    assert row[STATIC.index("depth")] == 0.0
    assert np.isfinite(row).all()


def test_a_unit_of_a_linear_layer_can_be_observed() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: net.out(torch.relu(net.hidden(torch.relu(net.a(x)).mean((2, 3))))),
        a=conv(2, 8),
        hidden=nn.Linear(8, 12),
        out=nn.Linear(12, 4),
    )
    found = statics(toy_walk(net))["hidden"]
    assert found["output_channels"] == pytest.approx(log2(12) / 12)
    assert found["height"] == pytest.approx(1 / 8)
