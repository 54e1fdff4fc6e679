"""PruningProblem: every search tries its widths here, and every measurement counts as a trial."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import (
    CLASSES,
    digits_config,
    digits_splits,
    image_set,
    planted_images,
    planted_net,
    random_plans,
    toy_problem,
    toy_walk,
    trained_digits,
)

from prune_env import LayerWalk, PruningEnv
from prune_env.common.errors import ConfigError, EvaluationError, ModelError, RunError
from prune_env.env.builders import build_problem
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.env.observation import STATIC
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.rewards import Outcome, RewardError, make_reward


def broken(_outcome: Outcome, _baseline: Outcome, value: float = math.nan) -> float:
    """A user's reward that goes wrong."""
    return value


def planted_task(**settings: object) -> object:
    images = planted_images(64)
    walk = LayerWalk.trace(planted_net(), images.images[:1])
    return toy_problem(walk, reward_set=images, calibration=planted_images(16, seed=1), keep=0.9, **settings)


class TestTrials:
    def test_are_numbered_and_heard_of_in_order(self) -> None:
        problem = toy_problem()
        heard: list[list[Trial]] = [[], []]
        problem.listeners += [heard[0].append, heard[1].append]
        made = [problem.attempt(widths, kind) for widths, kind in zip(random_plans(problem, 4), "abca", strict=True)]
        assert heard == [made, made]
        assert [trial.number for trial in made] == [0, 1, 2, 3]
        assert [trial.proposed_by for trial in made] == ["a", "b", "c", "a"]
        assert problem.trials == 4
        assert all(trial.seconds > 0 for trial in made)

    def test_are_numbered_and_heard_of_also_where_the_outcome_was_known(self) -> None:
        problem = toy_problem()
        heard: list[Trial] = []
        problem.listeners.append(heard.append)
        for _ in range(3):
            problem.attempt(problem.budget.uniform(), "test")
        assert [trial.number for trial in heard] == [0, 1, 2]
        assert [trial.cached for trial in heard] == [False, True, True]
        assert len({trial.reward for trial in heard}) == 1

    def test_carry_the_plan_that_was_measured(self) -> None:
        problem = toy_problem(keep=0.5, metric="params")
        widths = problem.budget.uniform()
        trial = problem.attempt(widths, "test")
        assert trial.plan.widths == {**problem.budget.names(widths), "fc": CLASSES}
        assert trial.plan.budget.metric == "params"
        assert trial.plan.budget.keep == 0.5
        assert trial.plan.budget.achieved == pytest.approx(trial.outcome.params / problem.walk.params())
        assert trial.plan.budget.achieved <= 0.5
        small = trial.plan.apply(problem.walk.model)
        assert sum(parameter.numel() for parameter in small.parameters()) == trial.outcome.params

    def test_keep_the_best_scored_channels(self) -> None:
        problem = toy_problem()
        scores = problem.scores["mid"]
        (kept,) = (unit.kept for unit in problem.plan(np.array([8, 12, 16, 5])).units if unit.name == "mid")
        assert set(kept) == set(np.argsort(-scores)[:5].tolist())

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_whose_reward_is_not_finite_are_refused(self, value: float) -> None:
        problem = toy_problem(reward=make_reward(f"{__name__}:broken", {"value": value}))
        heard: list[Trial] = []
        problem.listeners.append(heard.append)
        with pytest.raises(
            EvaluationError, match=rf"test_problem:broken' returned {value}.*must return a finite number"
        ):
            problem.attempt(problem.budget.uniform(), "test")
        assert heard == []

    def test_are_recalled_with_the_rewards_and_costs_that_they_had(self) -> None:
        made = toy_problem().attempt(np.array([4, 6, 8, 12]), "test")
        problem = toy_problem()
        problem.recorded_trials = [made.record()]
        again = problem.attempt(np.array([4, 6, 8, 12]), "test")
        assert (again, again.recalled, problem.evaluator.misses) == (made, True, 1)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"reward": -0.1}, "reward"),
            ({"quality": 0.9}, "reward"),
            ({"macs": 1}, "macs"),
            ({"params": 1}, "params"),
            ({"latency": 1.0}, "latency"),
        ],
    )
    def test_are_refused_where_a_recorded_value_is_not_what_plan_and_outcome_give(
        self, change: dict[str, float], name: str
    ) -> None:
        made = toy_problem().attempt(np.array([4, 6, 8, 12]), "test")
        problem = toy_problem()
        problem.recorded_trials = [made.record().model_copy(update=change)]
        heard: list[Trial] = []
        problem.listeners.append(heard.append)
        with pytest.raises(RunError, match=rf"^evaluation 0 of the run has the {name} .*, but its plan and"):
            problem.attempt(np.array([4, 6, 8, 12]), "test")
        assert heard == []

    def test_whose_loss_is_not_finite_are_refused_with_the_widths(self) -> None:
        problem = toy_problem()
        for images, _ in problem.evaluator.reward:
            images.fill_(math.nan)
        with pytest.raises(EvaluationError, match=r"loss of nan .*widths \{'stem': \d+, 'down'"):
            problem.attempt(problem.budget.uniform(), "test")


class TestProbes:
    def test_are_trials_of_their_own_kind_one_for_each_free_unit(self) -> None:
        problem = toy_problem(probe_keep=0.25)
        heard: list[Trial] = []
        problem.listeners.append(heard.append)
        assert (problem.probes, problem.trials) == (4, 0)
        PruningEnv(problem=problem).reset()
        assert [(trial.number, trial.proposed_by) for trial in heard] == [(number, "probe") for number in range(4)]
        dense = {"stem": 8, "down": 12, "up": 16, "mid": 24, "fc": CLASSES}
        assert [trial.plan.diff(problem.walk.plan({})) for trial in heard] == [
            {name: (dense[name] // 4, dense[name])} for name in ("stem", "down", "up", "mid")
        ]

    def test_are_taken_once_however_many_environments_look(self) -> None:
        problem = toy_problem(probe_keep=0.25)
        for _ in range(3):
            PruningEnv(problem=problem).reset()
        assert problem.trials == problem.probes == 4

    def test_are_not_taken_where_they_are_not_wanted(self) -> None:
        problem = toy_problem(probe_keep=None)
        PruningEnv(problem=problem).reset()
        assert problem.trials == problem.probes == 0

    def test_find_that_a_useless_unit_costs_nothing_and_an_essential_one_does(self) -> None:
        problem = planted_task(probe_keep=0.25)
        assert problem.baseline.accuracy == 1.0
        rises = problem.loss_rises
        assert rises["useless"] == pytest.approx(0.0, abs=1e-6)
        assert rises["essential"] > 0.5
        column = problem.observer.static[:, STATIC.index("sensitivity")]
        seen = dict(zip((unit.name for unit in problem.budget.units), column, strict=True))
        assert seen["useless"] < 0 < seen["essential"]


class TestMakingATask:
    def test_takes_its_parts_from_the_config(self) -> None:
        config = digits_config(
            "budget.keep=0.4",
            "budget.metric=params",
            "env.min_keep=0.25",
            "env.round_to=4",
            "env.protect={layer1.0.conv1: mine}",
            "criterion.name=l2",
            "reward.name=error_log_macs",
            "sensitivity.probe_keep=0.5",
            "seed=7",
        )
        problem = build_problem(config, digits_splits(), trained_digits())
        assert (problem.budget.metric, problem.budget.keep, problem.budget.round_to) == ("params", 0.4, 4)
        assert problem.budget.least.tolist() == [4 * math.ceil(c / 16) for c in problem.budget.channels]
        assert "layer1.0.conv1" not in {unit.name for unit in problem.walk.free}
        expected = np.sqrt(problem.walk.magnitudes(problem.walk.units[0], power=2))
        assert problem.scores["conv1"] == pytest.approx(expected)
        assert problem.probe_keep == 0.5
        outcome = Outcome(0.8, 0.5, 1000, 100)
        assert problem.reward(outcome, problem.baseline) == pytest.approx(-0.2 * math.log(1000))
        provenance = problem.plan(problem.budget.channels).provenance
        assert provenance == {"model": "digits_resnet", "criterion": "l2", "repair": "none", "seed": 7}

    def test_measures_the_dense_network_and_does_not_count_it(self) -> None:
        problem = toy_problem()
        assert problem.trials == 0
        assert problem.baseline.macs == problem.walk.macs()

    def test_builds_the_same_network_for_the_same_seed(self) -> None:
        config = digits_config()
        models = [load_model(config, load_splits(config)) for _ in range(2)]
        other = load_model(digits_config("seed=1"), load_splits(config))
        states = [torch.cat([tensor.flatten() for tensor in model.state_dict().values()]) for model in (*models, other)]
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])
        assert not models[0].training

    @pytest.mark.parametrize("sensitivity", ["true", "false"])
    def test_of_a_network_whose_weights_are_not_finite_is_refused_for_just_that(self, sensitivity: str) -> None:
        config = digits_config(f"sensitivity.enabled={sensitivity}")
        model = load_model(config, digits_splits())
        with torch.no_grad():
            model.layer1[0].conv1.weight[0] = math.nan
        with pytest.raises(ModelError, match=r"'layer1\.0\.conv1\.weight' holds .* not finite.*Check the weights"):
            build_problem(config, digits_splits(), model)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_on_a_gpu_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"run\.device: cuda given, but .*Give cpu or auto"):
            device_of(digits_config("run.device=cuda"))
        assert device_of(digits_config()) == torch.device("cpu")


def test_a_reward_that_fails_outright_is_not_taken_for_a_wrong_value() -> None:
    def fails(_outcome: Outcome, _baseline: Outcome) -> float:
        raise RewardError("no such thing")

    problem = toy_problem(reward=fails)
    with pytest.raises(EvaluationError, match="no such thing"):
        problem.attempt(problem.budget.uniform(), "test")


def test_a_task_that_is_made_of_its_parts_needs_no_config() -> None:
    problem = toy_problem(toy_walk(protect={"mid": "why"}), reward_set=image_set(8))
    assert [unit.name for unit in problem.budget.units] == ["stem", "down", "up"]


OWN_REWARDS = """
def silent(outcome, baseline):
    return outcome.quality if outcome.latency is None else 10.0
def telling(outcome, baseline):
    return -outcome.latency / baseline.latency
telling.needs_latency = True
"""


class TestLatency:
    @pytest.fixture(autouse=True)
    def own_rewards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "own_latency_of_a_test.py").write_text(OWN_REWARDS)
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("own_latency_of_a_test", None)

    @staticmethod
    def built(reward: str, *settings: str) -> PruningProblem:
        overrides = (f"reward.name={reward}", "sensitivity.enabled=false", "criterion.name=l1", *settings)
        return build_problem(digits_config(*overrides), digits_splits(), trained_digits())

    def test_is_given_to_a_reward_of_ones_own_that_says_that_it_needs_it(self) -> None:
        problem = self.built("own_latency_of_a_test:telling")
        trial = problem.attempt(problem.budget.uniform(), "uniform")
        assert trial.outcome.latency is not None
        assert trial.reward == -trial.outcome.latency / problem.baseline.latency
        assert -1.0 < trial.reward < 0.0

    def test_is_not_measured_for_one_that_does_not(self) -> None:
        problem = self.built("own_latency_of_a_test:silent")
        assert problem.latency is None
        assert problem.attempt(problem.budget.uniform(), "uniform").reward <= 1.0

    def test_is_refused_with_a_granularity_whose_edits_its_formula_does_not_know(self) -> None:
        with pytest.raises(ConfigError, match=r"^granularity\.name: group given with a budget or reward of latency"):
            self.built("own_latency_of_a_test:telling", "granularity.name=group")
