"""Agents that also decide group counts: actions of two numbers, demonstrations, and policies."""

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.figure import Figure
from toy import toy_problem

from prune_env import RunConfig
from prune_env.agents.ddpg import make_ddpg
from prune_env.agents.demonstrations import Demonstrations
from prune_env.agents.rules import RULE_PLANS, rule_plans
from prune_env.common.errors import ConfigError
from prune_env.config.agent import AgentSection
from prune_env.env import PruningEnv
from prune_env.env.observation import FEATURES, FloatArray
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.granularity.group.settings import GroupSettings
from prune_env.report.figures import figure_png, series_heat_map
from prune_env.search.episode import SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import load_policy, save_policy

pytestmark = pytest.mark.slow

LEARNERS = ("ddpg", "td3", "sac", "ppo")
EPISODES = 24
LIMITS = {"share": {"granularity.max_groups": 8}, "pruning_rate": {"env.min_keep": 0.1}}
AIM = np.array([0.3, -0.5], dtype=np.float32)


@cache
def known_problem(probe_keep: float | None = None) -> PruningProblem:
    """A problem whose convolutions may fall into groups; not to be changed."""
    return toy_problem(probe_keep=probe_keep, granularity=GroupSettings(name="group", kernels="norm"))


def group_problem(probe_keep: float | None = None, action: str = "share") -> PruningProblem:
    """The same without trials."""
    problem = known_problem(probe_keep).again()
    return replace(problem, granularity=problem.granularity.with_action(action))


def config_of(name: str, action: str = "share", evaluations: int = EPISODES) -> RunConfig:
    document = {
        "model": {"name": "toy"},
        "data": {"name": "noise"},
        "granularity": {"name": "group", "action": action},
        "agent": {"name": name, "hidden": [8]},
        "search": {"evaluations": evaluations},
    }
    return RunConfig.from_mapping(document)


@cache
def searched(name: str, action: str) -> tuple[SearchResult, tuple[Trial, ...]]:
    """A finished search and its trials."""
    problem = group_problem(action=action)
    trials: list[Trial] = []
    problem.listeners.append(trials.append)
    return train_agent(problem, config_of(name, action)), tuple(trials)


@pytest.mark.slow
@pytest.mark.parametrize(("action", "numbers"), [("share", 2), ("ratio", 2), ("pruning_rate", 1)])
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_searches_groups_within_the_budget(name: str, action: str, numbers: int) -> None:
    result, trials = searched(name, action)
    assert len(trials) == result.episodes == EPISODES
    assert all(trial.plan.costs.macs <= 0.5 * trial.plan.costs.dense_macs for trial in trials)
    counts = {count for trial in trials for count in trial.plan.groups.values()}
    assert len(counts - {1}) >= 2
    assert result.best.reward == max(trial.reward for trial in trials)
    assert result.policy is not None
    assert result.policy.action == action
    assert result.policy.granularity == "group"
    assert result.policy.act(np.zeros(len(FEATURES), dtype=np.float32)).shape == (numbers,)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_seed_tries_the_same_groups(name: str) -> None:
    result, trials = searched(name, "share")
    problem = group_problem()
    again: list[Trial] = []
    problem.listeners.append(again.append)
    repeated = train_agent(problem, config_of(name))
    assert [trial.plan for trial in again] == [trial.plan for trial in trials]
    assert repeated.best.plan == result.best.plan


@pytest.mark.parametrize("action", ["share", "pruning_rate"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_saved_policy_of_groups_makes_the_same_plan_when_loaded(name: str, action: str, tmp_path: Path) -> None:
    policy = searched(name, action)[0].policy
    assert policy is not None
    save_policy(policy, tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors")
    assert (loaded.granularity, loaded.action, loaded.features) == ("group", action, FEATURES)
    assert loaded.limits == policy.limits == LIMITS[action]
    for observation in np.random.default_rng(0).uniform(-1, 1, (5, len(FEATURES))).astype(np.float32):
        assert np.array_equal(loaded.act(observation), policy.act(observation))
    plans = [one.propose(PruningEnv(problem=group_problem(), action=action)).plan for one in (policy, loaded)]
    assert plans[0] == plans[1]
    assert plans[0].costs.macs <= 0.5 * plans[0].costs.dense_macs


def test_a_policy_is_refused_where_actions_have_another_shape() -> None:
    pair, rate = (searched("ddpg", action)[0].policy for action in ("share", "pruning_rate"))
    assert pair is not None
    assert rate is not None
    with pytest.raises(ConfigError, match=r"channel given, .* Give granularity\.name=group"):
        pair.propose(PruningEnv(problem=toy_problem(), action="share"))
    with pytest.raises(ConfigError, match=r"share given, .* Give granularity\.action=pruning_rate"):
        rate.propose(PruningEnv(problem=group_problem(), action="share"))


@pytest.mark.parametrize("action", LIMITS)
def test_a_policy_is_refused_where_its_actions_would_mean_something_else(action: str) -> None:
    policy = searched("ddpg", action)[0].policy
    assert policy is not None
    settings = GroupSettings(name="group", kernels="norm", max_groups=4)
    others = {
        "share": toy_problem(granularity=settings),
        "pruning_rate": toy_problem(min_keep=0.2, granularity=settings),
    }
    ((setting, known),) = LIMITS[action].items()
    with pytest.raises(ConfigError, match=rf"{setting}: .* given, .* Give {setting}={known}\."):
        policy.propose(PruningEnv(problem=others[action], action=action))
    # An older file does not say what actions mean.
    replace(policy, limits={}).propose(PruningEnv(problem=others[action], action=action))


@pytest.mark.parametrize("name", ["ddpg", "td3"])
@pytest.mark.parametrize("action", ["share", "ratio"])
def test_what_is_shown_is_in_one_group_and_the_rest_is_the_agent_s(name: str, action: str) -> None:
    problem = group_problem(0.25, action)
    tried: list[Trial] = []
    problem.listeners.append(tried.append)
    train_agent(problem, config_of(name, action, problem.probes + 2 * RULE_PLANS))
    episodes = [trial.plan for trial in tried if trial.proposed_by == name]
    assert len(episodes) == 2 * RULE_PLANS
    expected = [problem.plan(widths) for widths in rule_plans(problem)]
    assert [plan.kept for plan in episodes[:RULE_PLANS]] == [plan.kept for plan in expected]
    assert not any(plan.edits for plan in episodes[:RULE_PLANS])
    assert any(plan.edits for plan in episodes[RULE_PLANS:])


@pytest.mark.parametrize("action", ["share", "ratio", "pruning_rate"])
def test_the_agent_begins_with_what_it_is_shown(action: str) -> None:
    problem = group_problem(0.25)
    env = PruningEnv(problem=problem, action=action, proposed_by="shown")
    shown = Demonstrations(env, 2 * RULE_PLANS)
    expected = []
    for episode in range(len(shown)):
        env.reset()
        finished = False
        while not finished:
            step = shown.action(episode)
            assert step is not None
            assert (step.shape, step.dtype) == (env.action_space.shape, np.float32)
            *_, finished, _, info = env.step(step)
        expected.append(info["plan"])
    assert shown.action(len(shown)) is None
    assert all(plan.costs.macs <= 0.5 * plan.costs.dense_macs for plan in expected)
    tried: list[Trial] = []
    problem = group_problem(0.25, action)
    problem.listeners.append(tried.append)
    train_agent(problem, config_of("ddpg", action, problem.probes + 2 * RULE_PLANS))
    # Probes cut single units, whatever an action means.
    assert not any(trial.plan.edits for trial in tried if trial.proposed_by == "probe")
    assert [trial.plan.kept for trial in tried if trial.proposed_by == "ddpg"][: len(shown)] == [
        one.kept for one in expected
    ]


@pytest.mark.parametrize("action", ["share", "pruning_rate"])
def test_without_probes_nothing_is_shown(action: str) -> None:
    shown = Demonstrations(PruningEnv(problem=group_problem(), action=action), episodes=100)
    assert len(shown) == 0
    assert shown.action(0) is None


class Pair(gymnasium.Env[FloatArray, FloatArray]):
    """One step; the reward is the negative squared distance of an action of two numbers from a target."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(2, np.float32), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), -float(np.square(action - AIM).sum()), True, False, {}


def test_the_agent_learns_both_numbers() -> None:
    agent = make_ddpg(Pair(), AgentSection(), steps=1, episodes=300, seed=0)
    untrained, _ = agent.predict(np.zeros(2, np.float32), deterministic=True)
    agent.learn(300, log_interval=None)
    learnt, _ = agent.predict(np.zeros(2, np.float32), deterministic=True)
    assert np.abs(learnt - AIM).max() <= 0.15
    assert np.abs(untrained - AIM).min() > 0.15


def drawn(history: list[list[int]], first: int = 0) -> Figure:
    names = [f"layer{number}.conv" for number in range(len(history[0]))]
    return series_heat_map("groups", [dict(zip(names, row, strict=True)) for row in history], first)


@pytest.mark.parametrize(
    "history",
    [[[1]], [[8]], [[1, 1, 1]], [[1], [2], [4]], [[1, 8], [3, 2]]],
    ids=["one", "8", "row", "column", "table"],
)
def test_group_counts_are_drawn_however_few(history: list[list[int]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(figure_png(drawn(history, first=7))) > 5000
    (image,) = drawn(history, first=7).axes[0].get_images()
    assert np.array_equal(np.asarray(image.get_array()), np.array(history).T)
    assert image.get_extent() == [6.5, 6.5 + len(history), len(history[0]) - 0.5, -0.5]
    # One group always has the darkest colour.
    assert image.get_clim() == (1.0, max(2.0, np.max(history)))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 8])
def test_each_number_of_groups_stands_once_beside_the_colours(most: int) -> None:
    figure = drawn([[1, most]])
    figure_png(figure)
    axes = figure.axes[1]
    low, high = axes.get_ylim()
    labels = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert labels
    assert len(set(labels)) == len(labels)
