"""PruningEnv with groups: a second number for the count, or AGSPRL's pruning rate alone."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check
from toy import CLASSES, DIGITS, digits_config, image_set, toy_problem, toy_resnet, toy_walk

from prune_env import LayerWalk, PruningEnv
from prune_env.agents.rules import rule_plans
from prune_env.budget import Budget
from prune_env.common.errors import BudgetError, ConfigError, UserError
from prune_env.env.loading import check_names
from prune_env.env.observation import FEATURES
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.granularity.group import Group, groups_of
from prune_env.granularity.group.settings import GroupSettings
from prune_env.testing.counts import counted_macs, counted_params
from prune_env.walk.costs import Metric

pytestmark = pytest.mark.slow

STEPS = {"stem": [], "down": ["down"], "up": ["up", "project"], "mid": ["mid", "out"]}
"""Which convolutions are decided with which unit of the toy network."""

KINDS = ("share", "ratio", "pruning_rate")


def group_problem(walk: LayerWalk | None = None, most: int = 8, **given: Any) -> PruningProblem:
    granularity = GroupSettings(name="group", max_groups=most, kernels="norm")
    return toy_problem(walk, **{"reward_set": image_set(4), "granularity": granularity, **given})


def episode(env: PruningEnv, actions: Sequence[Sequence[float]]) -> list[tuple[Any, ...]]:
    """Resets the environment and steps through the actions; gives the result of each step."""
    env.reset(seed=0)
    return [env.step(np.array(action, dtype=np.float32)) for action in actions]


def plan_after(problem: PruningProblem, actions: Sequence[Sequence[float]], action: str = "share") -> Any:
    return episode(PruningEnv(problem=problem, action=action), actions)[-1][-1]["plan"]


def single_unit() -> LayerWalk:
    return toy_walk(toy_resnet(), protect=dict.fromkeys(("stem", "down", "up"), "why"))


@pytest.mark.parametrize(("action", "size"), [("share", 2), ("ratio", 2), ("pruning_rate", 1)])
def test_an_action_has_a_number_for_the_count_unless_it_is_a_rate(action: str, size: int) -> None:
    space = PruningEnv(problem=group_problem(keep=0.8), action=action).action_space
    assert space == gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)


@pytest.mark.filterwarnings("error")
class TestTheCheckers:
    @pytest.mark.parametrize("action", KINDS)
    @pytest.mark.parametrize("make", [toy_walk, single_unit], ids=["four units", "one unit"])
    def test_have_nothing_to_say_about_a_task_with_groups(self, make: Any, action: str) -> None:
        problem = group_problem(make(), keep=0.8)
        gymnasium_check(PruningEnv(problem=problem, action=action), skip_render_check=True)
        sb3_check(PruningEnv(problem=problem, action=action))

    def test_have_nothing_to_say_about_a_config_with_groups(self) -> None:
        config = {**DIGITS, "env": {"min_keep": 0.2}, "granularity": {"name": "group", "action": "pruning_rate"}}
        env = gymnasium.make("prune_env/Pruning-v0", config=config)
        assert env.action_space.shape == (1,)
        gymnasium_check(env.unwrapped)
        sb3_check(env)


@cache
def problems() -> list[PruningProblem]:
    walk = toy_walk()
    return [
        group_problem(walk, most, keep=keep, metric=metric, round_to=round_to, also=also)
        for keep, metric, round_to, most, also in (
            (0.5, "macs", 1, 8, {}),
            (0.5, "macs", 1, 8, {"params": 0.4}),
            (0.3, "params", 1, 4, {"macs": 0.6}),
            (0.6, "macs", 4, 8, {}),
            (0.7, "params", 8, 3, {}),
            (1.0, "macs", 3, 16, {}),
        )
    ]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_budget_is_met_whatever_the_actions(data: st.DataObject) -> None:
    problem = data.draw(st.sampled_from(problems()))
    action = data.draw(st.sampled_from(KINDS))
    env = PruningEnv(problem=problem, action=action)
    size = env.action_space.shape[0]
    numbers = st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size)
    actions = data.draw(st.lists(numbers, min_size=4, max_size=4))
    steps = episode(env, actions)
    plan, metrics = steps[-1][-1]["plan"], steps[-1][-1]["metrics"]
    small = plan.apply(problem.walk.model)
    assert counted_macs(small, image_set(1).images) == plan.costs.macs == metrics["macs"]
    assert counted_params(small) == plan.costs.params == metrics["params"]
    metric = problem.budget.metric
    cost, dense = getattr(plan.costs, metric), getattr(plan.costs, f"dense_{metric}")
    for budget in problem.budget.all:
        assert getattr(plan.costs, budget.metric) <= budget.keep * getattr(plan.costs, f"dense_{budget.metric}")
    assert plan.budget.achieved == pytest.approx(cost / dense)
    assert all(observation in env.observation_space for observation, *_ in steps)
    most = problem.granularity.settings.max_groups
    for (unit, names), (*_, info) in zip(STEPS.items(), steps, strict=True):
        assert info["unit"] == unit
        assert list(info["groups"]) == names
        for name in names:
            assert info["groups"][name] == plan.groups.get(name, 1) <= most


@pytest.mark.parametrize("action", KINDS)
def test_the_same_actions_give_the_same_plan_and_reward(action: str) -> None:
    actions = (
        [[0.6], [0.7], [0.4], [0.8]] if action == "pruning_rate" else [[0.4, 0.1], [-0.2, 0.9], [0.3, 0.5], [0, 1]]
    )
    found = [episode(PruningEnv(problem=group_problem(keep=0.6), action=action), actions) for _ in range(2)]
    ends = [(steps[-1][1], steps[-1][-1]["plan"], [step[0].tolist() for step in steps]) for steps in found]
    assert ends[0] == ends[1]
    assert ends[0][1].edits


def test_the_second_number_runs_from_one_group_to_the_most_evenly_in_logarithms() -> None:
    problem = group_problem(keep=1.0, most=8)
    for number, count in ((-1.0, 1), (-1 / 3, 2), (1 / 3, 4), (1.0, 8)):
        plan = plan_after(problem, [[1.0, number]] * 4, "ratio")
        counts = {name: plan.groups.get(name, 1) for names in STEPS.values() for name in names}
        # down reads 8 and writes 12 channels.
        assert counts == {"down": min(count, 4), "up": min(count, 4), "project": count, "mid": count, "out": count}


def test_without_groups_the_plan_is_that_of_channels_alone() -> None:
    grouped, plain = group_problem(keep=0.5), toy_problem(keep=0.5, reward_set=image_set(4))
    widths = [0.3, -0.4, 0.1, 0.6]
    one = plan_after(grouped, [[width, -1.0] for width in widths])
    other = plan_after(plain, [[width] for width in widths])
    assert one == other
    assert one.edits == {}


def test_more_groups_leave_more_channels_for_later_units() -> None:
    problem = group_problem(keep=0.3)
    few, many = (plan_after(problem, [[0.0, count], [0.0, count], [0.0, -1.0], [1.0, -1.0]]) for count in (-1.0, 0.4))
    assert many.widths["mid"] > few.widths["mid"]


def test_a_rate_runs_from_all_kernels_to_the_least_share() -> None:
    problem = group_problem(keep=1.0, min_keep=0.25)
    assert plan_after(problem, [[-1.0]] * 4, "pruning_rate").edits == {}
    most = plan_after(problem, [[1.0]] * 4, "pruning_rate")
    # out writes 16 channels and reads 24; all 24 stay, because mid's groups write them and each is read.
    assert {name: most.groups.get(name, 1) for name in ("down", "project", "up", "mid")} == {
        "down": 4,
        "project": 4,
        "up": 4,
        "mid": 4,
    }
    modules = dict(problem.walk.model.named_modules())
    for name, edit in groups_of(most).items():
        assert edit.reads / modules[name].in_channels == pytest.approx(0.25, abs=0.05)


class TestAnActionAskedFor:
    @pytest.mark.parametrize("action", ["share", "ratio"])
    def test_keep_ratios_gives_these_widths_in_one_group(self, action: str) -> None:
        problem = group_problem(keep=1.0)
        widths = {"stem": 5, "down": 12, "up": 9, "mid": 20}
        env = PruningEnv(problem=problem, action=action)
        env.reset()
        for width, unit in zip(widths.values(), problem.budget.units, strict=True):
            asked = env.action_for((width / unit.channels, 1.0))
            assert asked in env.action_space
            *_, info = env.step(asked)
            assert info["width"] == width
            assert set(info["groups"].values()) <= {1}
        assert info["plan"].widths == {**widths, "fc": CLASSES}
        assert info["plan"].edits == {}

    @pytest.mark.parametrize("action", ["share", "ratio"])
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_groups_gives_that_many(self, action: str, count: int) -> None:
        problem = group_problem(keep=1.0)
        env = PruningEnv(problem=problem, action=action)
        env.reset()
        for names in STEPS.values():
            asked = env.action_for((1.0, count))
            assert asked in env.action_space
            *_, info = env.step(asked)
            assert info["groups"] == dict.fromkeys(names, count)

    def test_where_at_most_one_group_may_be_is_in_the_space(self) -> None:
        env = PruningEnv(problem=group_problem(keep=1.0, most=1), action="ratio")
        env.reset()
        assert env.action_for((1.0, 1.0)).tolist() == [1.0, -1.0]

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.75, 1.0])
    def test_a_share_of_the_kernels_leaves_that_share(self, share: float) -> None:
        problem = group_problem(keep=1.0)
        env = PruningEnv(problem=problem, action="pruning_rate")
        env.reset()
        for _ in STEPS:
            observation, *_ = env.step(env.action_for((share,)))
            assert observation[FEATURES.index("previous_keep")] == pytest.approx(share, abs=1e-6)

    @pytest.mark.parametrize("action", KINDS)
    def test_out_of_range_is_the_nearest_action_in_the_space(self, action: str) -> None:
        env = PruningEnv(problem=group_problem(keep=0.6), action=action)
        env.reset()
        for keep in (1e-6, 1.0, 5.0):
            assert env.action_for((keep, 64.0)[: len(env.dimensions)]) in env.action_space


class TestWhatIsRefused:
    def test_a_pruning_rate_without_groups(self) -> None:
        with pytest.raises(
            UserError, match=r"'pruning_rate' given; allowed with granularity\.name=channel are 'share', 'ratio'"
        ):
            PruningEnv(problem=toy_problem(), action="pruning_rate")

    def test_an_unknown_action(self) -> None:
        with pytest.raises(
            UserError, match=r"'rate' given; allowed with granularity\.name=group are 'share', 'ratio', 'pruning_rate'"
        ):
            PruningEnv(problem=group_problem(), action="rate")

    def test_a_budget_that_rates_cannot_meet_before_any_step(self) -> None:
        with pytest.raises(BudgetError, match="at its highest pruning rate"):
            PruningEnv(problem=group_problem(keep=0.12), action="pruning_rate")

    @pytest.mark.parametrize(
        "overrides",
        [
            ["granularity.name=group", "budget.metric=latency"],
            ["granularity.name=group", "reward.name=latency_penalty", "reward.settings.keep=0.5"],
        ],
    )
    def test_a_config_that_does_not_go_together(self, overrides: list[str]) -> None:
        with pytest.raises(ConfigError, match=r"granularity\.name: group given with a budget or reward of latency"):
            check_names(digits_config(*overrides))

    def test_a_rate_in_a_config_of_channels(self) -> None:
        with pytest.raises(
            ConfigError, match=r"granularity\.action: given \"pruning_rate\"; must be 'share' or 'ratio'"
        ):
            digits_config("granularity.action=pruning_rate")

    def test_no_config_that_goes_together(self) -> None:
        check_names(digits_config("granularity.name=group", "granularity.action=pruning_rate"))
        check_names(digits_config("granularity.name=group", "budget.metric=params"))
        check_names(digits_config("budget.metric=latency"))


def test_a_config_s_action_and_groups_are_what_the_environment_has() -> None:
    env = PruningEnv({**DIGITS, "granularity": {"name": "group", "max_groups": 4}, "budget": {"keep": 0.4}})
    env.action_space.seed(0)
    env.reset()
    done = False
    while not done:
        _, reward, done, _, info = env.step(env.action_space.sample())
    assert reward != 0.0
    plan = info["plan"]
    assert plan.costs.macs <= 0.4 * plan.costs.dense_macs
    assert plan.groups
    assert set(plan.groups.values()) <= {1, 2, 4}
    # Every allowed count is timed.
    granularity = env.granularity
    assert isinstance(granularity, Group)
    assert set(granularity.times) == {found.name for found in granularity.grouping.convolutions}


class TestABudgetBelowWholeChannels:
    """With widths in multiples of 8, whole channels of the toy reach 0.40 of the MACs, and groups far less."""

    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=4, max_size=4), st.floats(0, 1))
    def test_is_met_from_the_smallest_plan_on(self, actions: list[tuple[float, float]], spread: float) -> None:
        whole = group_problem(keep=1.0, round_to=8)
        low, high = whole.granularity.reachable(whole.budget)
        least = whole.budget.reachable[0]
        assert (high, low < 0.5 * least) == (1.0, True)
        problem = group_problem(keep=low + spread * (least - low), round_to=8)
        plan = plan_after(problem, actions)
        assert round(low * problem.budget.dense) <= plan.costs.macs <= problem.budget.limit
        small = plan.apply(problem.walk.model)
        assert (plan.costs.macs, plan.costs.params) == (
            counted_macs(small, image_set(1).images),
            counted_params(small),
        )

    @pytest.mark.parametrize("seed", range(5))
    def test_is_met_in_every_metric(self, seed: int) -> None:
        params = Budget(toy_walk(), "params", 1.0, round_to=8).reachable[0]
        also: Mapping[Metric, float] = {"params": 0.9 * params}
        problem = group_problem(keep=0.9, round_to=8, also=also)
        chance = np.random.default_rng(seed)
        plan = plan_after(problem, [tuple(chance.uniform(-1, 1, 2)) for _ in range(4)])
        assert plan.costs.params <= also["params"] * plan.costs.dense_params
        assert plan.costs.macs <= 0.9 * plan.costs.dense_macs

    def test_is_refused_below_the_smallest_plan_with_the_interval_in_words(self) -> None:
        with pytest.raises(
            BudgetError, match=r"budget\.keep: 0\.01 .*every convolution in its largest group count"
        ) as caught:
            group_problem(keep=0.01, round_to=8)
        (said,) = re.findall(r"Reachable are ([\d.]+) to 1\.", str(caught.value))
        accepted = group_problem(keep=float(said), round_to=8)
        low, _ = accepted.granularity.reachable(accepted.budget)
        assert low == pytest.approx(float(said), abs=1.01e-4)

    def test_agents_are_shown_rules_that_groups_bring_within_the_budget(self) -> None:
        problem = group_problem(keep=0.3, round_to=8, probe_keep=0.5)
        ratios = [widths / problem.budget.channels for widths in rule_plans(problem)]
        for numbers in problem.granularity.demonstrations(ratios, problem.budget):
            assert problem.planner.plan(Proposal(numbers=numbers)).costs.macs <= problem.budget.limit
