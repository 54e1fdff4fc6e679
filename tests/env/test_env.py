"""PruningEnv: the layer walk as a Gymnasium environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check
from torch import nn
from toy import (
    CLASSES,
    DIGITS,
    WatchedSource,
    digits_config,
    digits_splits,
    image_set,
    toy_problem,
    toy_resnet,
    toy_walk,
    trained_digits,
)
from zoo import Net, conv

from prune_env import LayerWalk, PruningEnv
from prune_env.common.errors import BudgetError, ConfigError
from prune_env.data import Splits
from prune_env.env.builders import build_problem
from prune_env.env.problem import PruningProblem

FULL = {"stem": 8, "down": 12, "up": 16, "mid": 24, "fc": CLASSES}


def episode(env: gymnasium.Env[Any, Any], actions: Sequence[float]) -> list[tuple[Any, ...]]:
    """Resets the environment and steps through the actions; gives the result of each step."""
    env.reset(seed=0)
    return [env.step(np.array([action], dtype=np.float32)) for action in actions]


def widths_after(problem: PruningProblem, actions: Sequence[float], action: str = "share") -> dict[str, int]:
    return episode(PruningEnv(problem=problem, action=action), actions)[-1][-1]["plan"].widths


def single_unit() -> LayerWalk:
    return toy_walk(toy_resnet(), protect=dict.fromkeys(("stem", "down", "up"), "why"))


class TestMake:
    def test_from_a_mapping_gives_the_task_that_it_describes(self) -> None:
        env = gymnasium.make("prune_env/Pruning-v0", config={**DIGITS, "budget": {"keep": 0.6}})
        problem = env.unwrapped.problem
        assert problem.budget.keep == 0.6
        assert len(problem.budget.units) == 12
        env.reset(seed=0)
        *_, info = env.step(env.action_space.sample())
        assert info["unit"] == "conv1"

    @pytest.mark.slow
    def test_from_a_file_or_a_config_gives_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "digits.yaml"
        path.write_text(yaml.safe_dump(DIGITS))
        trials = []
        for config in (path, str(path), digits_config(), DIGITS):
            env = gymnasium.make("prune_env/Pruning-v0", config=config)
            *_, info = episode(env, np.linspace(-1, 1, 12).tolist())[-1]
            trials.append((info["plan"], info["metrics"]))
        assert all(trial == trials[0] for trial in trials)

    def test_takes_the_meaning_of_actions_from_the_config(self) -> None:
        env = PruningEnv(DIGITS | {"env": {"action": "ratio"}, "budget": {"keep": 1.0}})
        assert [step[-1]["width"] for step in episode(env, [1.0, 0.0, -1.0])] == [16, 8, 2]

    def test_without_anything_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"needs a config \(a path, a mapping or a RunConfig\) or a problem"):
            PruningEnv()

    def test_with_a_misspelt_key_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"budget\.kep: unknown key; did you mean 'keep'"):
            gymnasium.make("prune_env/Pruning-v0", config={**DIGITS, "budget": {"kep": 0.6}})

    def test_with_a_budget_out_of_reach_is_refused(self) -> None:
        with pytest.raises(BudgetError, match=r"Reachable are 0\.\d+ to 1"):
            gymnasium.make("prune_env/Pruning-v0", config={**DIGITS, "budget": {"keep": 0.001}})


@pytest.mark.filterwarnings("error")
class TestTheCheckers:
    def test_of_gymnasium_has_nothing_to_say(self) -> None:
        env = gymnasium.make("prune_env/Pruning-v0", config=DIGITS)
        gymnasium_check(env.unwrapped)

    def test_of_stable_baselines_has_nothing_to_say(self) -> None:
        env = gymnasium.make("prune_env/Pruning-v0", config=DIGITS)
        sb3_check(env.unwrapped)
        sb3_check(env)

    @pytest.mark.parametrize("action", ["share", "ratio"])
    @pytest.mark.parametrize("make", [toy_walk, single_unit], ids=["four units", "one unit"])
    def test_have_nothing_to_say_about_a_task_of_ones_own(self, make: Any, action: str) -> None:
        """With one unit the first step is the last step, so the info of the finished plan is checked, too."""
        problem = toy_problem(make(), keep=0.8, probe_keep=0.5)
        # The render check needs a spec, which only `gymnasium.make` gives; the tests above check such environments.
        gymnasium_check(PruningEnv(problem=problem, action=action), skip_render_check=True)
        sb3_check(PruningEnv(problem=problem, action=action))


class TestAnEpisode:
    def test_asks_for_every_free_unit_once_in_forward_order(self) -> None:
        problem = toy_problem()
        steps = episode(PruningEnv(problem=problem), [0.0] * 4)
        assert [info["unit"] for *_, info in steps] == [unit.name for unit in problem.walk.free]
        assert [info["width"] for *_, info in steps] == [steps[-1][-1]["plan"].widths[unit] for unit in list(FULL)[:4]]

    def test_never_asks_for_protected_units_and_keeps_them_whole(self) -> None:
        problem = toy_problem(toy_walk(protect={"stem": "sensitive", "up": "mine"}), keep=0.7)
        steps = episode(PruningEnv(problem=problem), [-1.0] * 2)
        assert [info["unit"] for *_, info in steps] == ["down", "mid"]
        assert steps[-1][2] is True
        widths = steps[-1][-1]["plan"].widths
        assert (widths["stem"], widths["up"]) == (8, 16)
        assert widths["down"] < 12

    def test_is_rewarded_and_ended_at_its_last_step_only(self) -> None:
        problem = toy_problem(reward=lambda outcome, _: 5.0 + outcome.accuracy)
        steps = episode(PruningEnv(problem=problem), [0.1, -0.2, 0.3, 0.0])
        assert [reward for _, reward, *_ in steps[:-1]] == [0.0] * 3
        assert steps[-1][1] == 5.0 + steps[-1][-1]["metrics"]["accuracy"]
        assert [terminated for _, _, terminated, *_ in steps] == [False, False, False, True]
        assert not any(truncated for *_, truncated, _ in steps)
        assert all("plan" not in info and "metrics" not in info for *_, info in steps[:-1])

    def test_ends_with_the_plan_and_its_metrics(self) -> None:
        problem = toy_problem()
        info = episode(PruningEnv(problem=problem), [0.0] * 4)[-1][-1]
        plan, metrics = info["plan"], info["metrics"]
        assert set(metrics) == {"accuracy", "loss", "macs", "params"}
        assert metrics["macs"] == problem.walk.macs(plan.widths) == plan.costs.macs
        assert metrics["params"] == sum(p.numel() for p in plan.apply(problem.walk.model).parameters())
        outcome = problem.evaluator.evaluate(plan)
        assert (metrics["accuracy"], metrics["loss"]) == (outcome.accuracy, outcome.loss)

    def test_that_is_over_says_what_to_do(self) -> None:
        env = PruningEnv(problem=toy_problem())
        episode(env, [0.0] * 4)
        with pytest.raises(RuntimeError, match=r"episode is over.*Call reset\(\)"):
            env.step(np.zeros(1, dtype=np.float32))
        assert len(episode(env, [0.0] * 4)) == 4

    def test_can_be_begun_anew_at_any_step(self) -> None:
        problem = toy_problem()
        env = PruningEnv(problem=problem)
        first, _ = env.reset()
        episode(env, [-1.0, -1.0])
        again, info = env.reset()
        assert np.array_equal(first, again)
        assert info == {"unit": "stem"}
        assert episode(env, [0.0] * 4)[-1][-1]["plan"].widths == widths_after(problem, [0.0] * 4)

    def test_is_one_trial_of_the_kind_that_the_environment_is_for(self) -> None:
        problem = toy_problem()
        heard: list[Any] = []
        problem.listeners.append(heard.append)
        episode(PruningEnv(problem=problem, proposed_by="random"), [0.0] * 4)
        assert [(trial.proposed_by, trial.number) for trial in heard] == [("random", 0)]

    def test_of_a_plan_that_another_environment_tried_costs_nothing(self) -> None:
        problem = toy_problem()
        one, other = PruningEnv(problem=problem), PruningEnv(problem=problem)
        episode(one, [0.0] * 4)
        misses = problem.evaluator.misses
        episode(other, [0.0] * 4)
        assert problem.evaluator.misses == misses

    @pytest.mark.slow
    def test_never_looks_at_the_test_set(self) -> None:
        whole = digits_splits()
        source = WatchedSource(whole.source)
        splits = Splits(
            source, whole.reward_indices, whole.calibration_indices, whole.train_indices, whole.test_indices
        )
        problem = build_problem(digits_config(), splits, trained_digits())
        episode(PruningEnv(problem=problem), [0.0] * 12)
        assert source.loaded["test"] == []
        searched = {*whole.reward_indices.tolist(), *whole.calibration_indices.tolist()}
        assert set(source.loaded["train"]) == searched


class TestTheBudget:
    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_is_met_whatever_the_actions(self, data: st.DataObject) -> None:
        problem = data.draw(st.sampled_from(TASKS))
        action = data.draw(st.sampled_from(["share", "ratio"]))
        actions = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
        plan = episode(PruningEnv(problem=problem, action=action), actions)[-1][-1]["plan"]
        cost, dense = (
            (plan.costs.macs, plan.costs.dense_macs)
            if problem.budget.metric == "macs"
            else (plan.costs.params, plan.costs.dense_params)
        )
        assert cost <= problem.budget.keep * dense
        assert plan.budget.achieved <= problem.budget.keep
        for number, unit in enumerate(problem.budget.units):
            width = plan.widths[unit.name]
            assert width == unit.channels or width % problem.budget.round_to == 0
            assert width >= problem.budget.least[number]


WALK = toy_walk()
TASKS = [
    toy_problem(WALK, keep=keep, metric=metric, round_to=round_to, reward_set=image_set(4))
    for keep, metric, round_to in (
        (0.5, "macs", 1),
        (0.25, "params", 1),
        (0.6, "macs", 4),
        (0.7, "params", 8),
        (1.0, "macs", 3),
    )
]


class TestActions:
    @pytest.mark.parametrize("keep", [0.3, 0.5, 0.8, 1.0])
    def test_of_nothing_everywhere_give_the_uniform_plan_in_share_mode(self, keep: float) -> None:
        problem = toy_problem(toy_walk(toy_resnet(16)), keep=keep)
        found = widths_after(problem, [0.0] * 4)
        for unit, width in zip(problem.budget.units, problem.budget.uniform(), strict=True):
            # Later units spend the rest that rounding leaves.
            assert abs(found[unit.name] - width) <= max(1, 0.05 * unit.channels)
        assert problem.walk.macs(found) >= 0.97 * problem.budget.limit

    def test_keep_more_the_larger_they_are(self) -> None:
        problem = toy_problem(keep=0.5)
        widths = [widths_after(problem, [action, 0.0, 0.0, 0.0])["stem"] for action in (-1.0, -0.5, 0.0, 0.5)]
        assert widths == sorted(set(widths))

    def test_leave_more_for_the_later_units_the_less_the_first_keeps(self) -> None:
        problem = toy_problem(keep=0.5)
        low, high = (widths_after(problem, [action, 0.0, 0.0, 0.0]) for action in (-1.0, 1.0))
        assert low["stem"] < high["stem"]
        assert low["up"] > high["up"]

    def test_multiply_the_even_ratio_by_up_to_e_in_share_mode(self) -> None:
        problem = toy_problem(toy_walk(toy_resnet(64)), keep=0.2)
        even = problem.budget.even_ratio(problem.budget.least, np.ones(4, dtype=np.int64))
        widths = [widths_after(problem, [action, 0.0, 0.0, 0.0])["stem"] for action in (-1.0, 1.0)]
        assert widths == [max(7, round(64 * even / np.e)), min(64, round(64 * even * np.e))]

    def test_run_from_the_least_width_to_everything_in_ratio_mode(self) -> None:
        problem = toy_problem(keep=1.0, min_keep=0.25)
        assert widths_after(problem, [-1.0] * 4, "ratio") == {"stem": 2, "down": 3, "up": 4, "mid": 6, "fc": CLASSES}
        assert widths_after(problem, [1.0] * 4, "ratio") == FULL
        assert widths_after(problem, [0.0] * 4, "ratio") == {"stem": 4, "down": 6, "up": 8, "mid": 12, "fc": CLASSES}

    def test_beyond_the_budget_are_clipped_to_the_largest_width_that_meets_it(self) -> None:
        problem = toy_problem(keep=0.5)
        widths = widths_after(problem, [1.0] * 4, "ratio")
        assert widths["stem"] == problem.budget.cap(0, problem.budget.least)
        assert (
            problem.walk.macs(widths)
            <= 0.5 * problem.walk.macs()
            < problem.walk.macs({**widths, "mid": widths["mid"] + 1})
        )


class TestRepeating:
    def test_the_same_seed_and_actions_gives_the_same_plan_and_reward(self) -> None:
        """Two environments from one config share nothing, and each trains its own network."""
        config = {**DIGITS, "pretrain": {"epochs": 1, "batch_size": 256}, "seed": 3}
        results = []
        for _ in range(2):
            env = gymnasium.make("prune_env/Pruning-v0", config=config)
            env.action_space.seed(1)
            steps = episode(env, [float(env.action_space.sample()[0]) for _ in range(12)])
            observations = np.stack([step[0] for step in steps])
            results.append((observations.tolist(), steps[-1][1], steps[-1][-1]["plan"], steps[-1][-1]["metrics"]))
        assert results[0] == results[1]

    def test_another_seed_gives_another_network(self) -> None:
        losses = {PruningEnv({**DIGITS, "seed": seed}).problem.baseline.loss for seed in (0, 1)}
        assert len(losses) == 2


def test_a_step_runs_no_network_until_the_last() -> None:
    """A step is integer arithmetic; only the finished plan is evaluated."""
    calls: list[int] = []

    def forward(net: Net, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return net.fc(torch.relu(net.b(torch.relu(net.a(images)))).mean((2, 3)))

    torch.manual_seed(0)
    problem = toy_problem(toy_walk(Net(forward, a=conv(2, 8), b=conv(8, 8), fc=nn.Linear(8, CLASSES)).eval()))
    env = PruningEnv(problem=problem)
    env.reset()
    calls.clear()
    env.step(np.zeros(1, dtype=np.float32))
    assert calls == []
    env.step(np.zeros(1, dtype=np.float32))
    assert calls != []
