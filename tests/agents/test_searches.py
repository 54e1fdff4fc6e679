"""The same tests for every search: its trials, its budget, its seed, its resuming and its policy."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from toy import policy_for, toy_problem, toy_walk

from prune_env import LayerWalk, PruningEnv, PruningPlan, RunConfig
from prune_env.agents import train_agent
from prune_env.agents.baselines import EXPONENTS, POWERS
from prune_env.agents.rules import greedy_widths, power_widths
from prune_env.common.errors import ConfigError, RunError, WeightsError
from prune_env.env.observation import FEATURES
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial, TrialRecord
from prune_env.evaluation.racing import Race
from prune_env.rewards import Outcome
from prune_env.search.base import Search
from prune_env.search.policy import Policy, load_policy, policy_of, save_policy
from prune_env.search.registry import SEARCHES, check_evaluations, check_named_search

PROBES = 4
EVALUATIONS = 26
FINITE = {
    "uniform": 1,
    "eigenvalue": 1,
    "thresholds": 1,
    "replay": PROBES + 1,
    "greedy": PROBES + len(POWERS),
    "power": PROBES + len(EXPONENTS),
}
"""Searches that end before the evaluations are used up, and their numbers of trials."""
DETERMINISTIC = tuple(FINITE)
RANDOM = tuple(name for name in SEARCHES if name not in DETERMINISTIC)
LEARNERS = {
    "ddpg": (nn.Tanh, "actor.mu.2"),
    "td3": (nn.Tanh, "actor.mu.2"),
    "sac": (nn.Tanh, "actor.mu"),
    "ppo": (nn.Hardtanh, "action_net"),
}
"""The function that bounds the action of each learner's policy, and the bounded layer of the agent."""

Records = list[TrialRecord]


@cache
def walk() -> LayerWalk:
    return toy_walk()


def problem_of(**settings: Any) -> PruningProblem:
    """A fresh problem with an evaluator of its own, whose units are probed."""
    return toy_problem(walk(), **{"probe_keep": 0.25} | settings)


def config_of(name: str, seed: int = 0, evaluations: int = EVALUATIONS, **sections: Any) -> RunConfig:
    agent = {"name": name, "hidden": [8]} | sections.pop("agent", {})
    sections = {"agent": agent, "search": {"evaluations": evaluations}} | sections
    document = {"seed": seed, "model": {"name": "toy"}, "data": {"name": "noise"}, **sections}
    return RunConfig.from_mapping(document, policy_for(name) if name in SEARCHES else [])


def search_trials(problem: PruningProblem, config: RunConfig) -> list[Trial]:
    """All trials of a search, probes included."""
    trials: list[Trial] = []
    problem.listeners.append(trials.append)
    train_agent(problem, config)
    return trials


@cache
def uninterrupted(name: str, seed: int = 0) -> tuple[Trial, ...]:
    return tuple(search_trials(problem_of(), config_of(name, seed)))


def records_of(trials: Sequence[Trial]) -> Records:
    """The records that a run's ``evaluations.jsonl`` would hold."""
    return [trial.record() for trial in trials]


def widths_and_rewards(trials: Sequence[Trial]) -> list[tuple[Mapping[str, int], float]]:
    return [(trial.plan.widths, trial.reward) for trial in trials]


def measured(problem: PruningProblem) -> list[PruningPlan]:
    """The plans that the problem's evaluator runs from now on."""
    plans: list[PruningPlan] = []
    run = problem.evaluator.run

    def noted(plan: PruningPlan, *arguments: Any) -> Outcome:
        plans.append(plan)
        return run(plan, *arguments)

    problem.evaluator.run = noted  # type: ignore[method-assign]
    return plans


LEARNING = ("td3", "sac", "ppo", "cma", "cma_from_rules", "tpe")
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in LEARNING else ()) for name in SEARCHES.names()]
"""All searches; of those that learn, only our agent is among the quick tests."""


class TestTrials:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_as_many_as_there_are_evaluations_or_the_search_has_plans(self, name: str) -> None:
        assert len(uninterrupted(name)) == FINITE.get(name, EVALUATIONS)

    @pytest.mark.parametrize("name", NAMES)
    def test_end_with_the_evaluations_in_the_middle_of_anything(self, name: str) -> None:
        few = search_trials(problem_of(), config_of(name, evaluations=PROBES + 2))
        assert len(few) == min(PROBES + 2, FINITE.get(name, PROBES + 2))

    @pytest.mark.parametrize("metric", ["macs", "params"])
    @pytest.mark.parametrize("name", NAMES)
    def test_are_the_probes_first_and_then_plans_of_the_search_within_the_budget(self, name: str, metric: str) -> None:
        other = "params" if metric == "macs" else "macs"
        problem = problem_of(metric=metric, keep=0.4, also={other: 0.4})
        trials = search_trials(problem, config_of(name, evaluations=12))
        probes = PROBES if SEARCHES.find(name).probes else 0
        kinds = [trial.proposed_by for trial in trials]
        assert kinds == ["probe"] * probes + [name] * (len(trials) - probes)
        assert len(trials) > probes
        for trial in trials[probes:]:
            for budget in problem.budget.all:
                assert getattr(trial.outcome, budget.metric) <= budget.limit
            assert trial.plan.budget.also == {other: 0.4}
            assert trial.plan.budget.achieved <= 0.4

    @pytest.mark.parametrize("name", NAMES)
    def test_are_the_same_for_the_same_seed(self, name: str) -> None:
        again = search_trials(problem_of(), config_of(name))
        assert widths_and_rewards(again) == widths_and_rewards(uninterrupted(name))

    @pytest.mark.parametrize("name", NAMES)
    def test_are_others_for_another_seed_where_there_is_chance(self, name: str) -> None:
        alike = widths_and_rewards(uninterrupted(name, 1)) == widths_and_rewards(uninterrupted(name))
        assert alike == (name in DETERMINISTIC)

    def test_of_the_rules_do_not_all_come_to_the_uniform_plan(self) -> None:
        (uniform,) = uninterrupted("uniform")
        for name in ("greedy", "power"):
            plans = [trial.plan.widths for trial in uninterrupted(name)[PROBES:]]
            assert any(plan != uniform.plan.widths for plan in plans)

    @pytest.mark.parametrize("name", NAMES)
    def test_give_the_best_of_the_search_s_own_plans(self, name: str) -> None:
        problem = problem_of()
        trials: list[Trial] = []
        problem.listeners.append(trials.append)
        found = train_agent(problem, config_of(name))
        own = [trial for trial in trials if trial.proposed_by == name]
        assert found.best.reward == max(trial.reward for trial in own)
        assert found.best in own
        assert found.episodes == len(own)
        assert (found.policy is not None) == (name in (*LEARNERS, "replay"))


def stopped_after(name: str) -> list[int]:
    """Numbers of trials before an interruption: during the probes, after them, in the middle, and at the end."""
    count = FINITE.get(name, EVALUATIONS)
    return sorted({min(stop, count) for stop in (1, PROBES, PROBES + 3, EVALUATIONS - 5, EVALUATIONS)})


@pytest.mark.slow
class TestResuming:
    @pytest.mark.parametrize(("name", "stop"), [(name, stop) for name in SEARCHES for stop in stopped_after(name)])
    def test_goes_on_as_if_nothing_had_happened_and_measures_nothing_again(self, name: str, stop: int) -> None:
        whole = uninterrupted(name)
        problem = problem_of()
        problem.recorded_trials = records_of(whole[:stop])
        ran = measured(problem)
        trials = search_trials(problem, config_of(name))
        assert trials == list(whole)
        assert [trial.number for trial in trials] == list(range(len(whole)))
        assert [trial.recalled for trial in trials] == [number < stop for number in range(len(whole))]
        assert [trial.cached for trial in trials] == [trial.cached for trial in whole]
        assert ran == [trial.plan for trial in whole[stop:] if not trial.cached]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["random", "cma", "ddpg"])
    def test_goes_on_after_racing_stopped_a_plan_early(self, name: str) -> None:
        def raced(recorded_trials: Records) -> list[Trial]:
            problem = problem_of(batch_size=1)
            problem.race = Race.on(problem.evaluator, problem.reward)
            problem.recorded_trials = recorded_trials
            return search_trials(problem, config_of(name))

        whole = raced([])
        assert not all(trial.outcome.complete for trial in whole)
        assert raced(records_of(whole[:14])) == whole

    @pytest.mark.parametrize("name", SEARCHES.names())
    def test_is_refused_where_another_plan_is_recorded(self, name: str) -> None:
        whole = uninterrupted(name)
        for place in {0, len(whole) - 1}:
            records = records_of(whole)
            widths = {**records[place].widths, "mid": records[place].widths["mid"] + 1}
            records[place] = records[place].model_copy(update={"widths": widths})
            problem = problem_of()
            problem.recorded_trials = records
            heard: list[Trial] = []
            problem.listeners.append(heard.append)
            with pytest.raises(RunError, match=rf"^evaluation {place} of the run is .* cannot be resumed here"):
                train_agent(problem, config_of(name))
            assert len(heard) == place

    def test_is_refused_where_another_search_s_plan_is_recorded(self) -> None:
        problem = problem_of()
        problem.recorded_trials = records_of(uninterrupted("random"))
        with pytest.raises(RunError, match=r"^evaluation 0 .* kind: 'random' recorded, 'uniform' proposed"):
            train_agent(problem, config_of("uniform"))

    @pytest.mark.parametrize("name", RANDOM)
    def test_is_refused_with_another_seed(self, name: str) -> None:
        problem = problem_of()
        problem.recorded_trials = records_of(uninterrupted(name))
        with pytest.raises(RunError, match=r"^evaluation \d+ of the run is"):
            train_agent(problem, config_of(name, seed=1))


def trained(name: str) -> tuple[Any, Policy]:
    """A learner's search after its last episode, and the policy that it left."""
    heard: list[Search] = []
    found = train_agent(problem_of(), config_of(name), (lambda _, search: heard.append(search),))
    assert found.policy is not None
    return heard[-1], found.policy


def observations(count: int = 50) -> np.ndarray:
    """Random observations, float32 [count, features]."""
    return np.random.default_rng(0).uniform(-1, 1, (count, len(FEATURES))).astype(np.float32)


def actions_of(policy: Policy) -> np.ndarray:
    return np.array([policy.act(observation) for observation in observations()])


class TestPolicies:
    @pytest.mark.parametrize("name", LEARNERS)
    def test_act_as_the_agent_does_without_exploration(self, name: str) -> None:
        search, policy = trained(name)
        predicted, _ = search.agent.predict(observations(), deterministic=True)
        assert np.ptp(predicted) > 1e-3
        np.testing.assert_allclose(actions_of(policy), predicted, atol=1e-6)

    @pytest.mark.parametrize("name", LEARNERS)
    def test_are_bounded_as_the_agent_s_actions_are(self, name: str) -> None:
        search, policy = trained(name)
        bound, last = LEARNERS[name]
        assert isinstance(policy.actor[-1], bound)
        furthest = policy.actor[:-1](torch.from_numpy(observations())).abs().max()
        for parameter in search.agent.policy.get_submodule(last).parameters():
            parameter.data.mul_(2.0 / furthest)
        predicted, _ = search.agent.predict(observations(), deterministic=True)
        assert np.abs(predicted).max() == pytest.approx(1.0 if name == "ppo" else np.tanh(2.0), abs=1e-6)
        np.testing.assert_allclose(actions_of(search.policy), predicted, atol=1e-6)

    @pytest.mark.parametrize("name", LEARNERS)
    def test_are_the_same_when_saved_and_loaded(self, name: str, tmp_path: Path) -> None:
        _, policy = trained(name)
        save_policy(policy, tmp_path / "policy.safetensors")
        loaded = load_policy(tmp_path / "policy.safetensors")
        assert np.array_equal(actions_of(loaded), actions_of(policy))
        assert [type(layer) for layer in loaded.actor] == [type(layer) for layer in policy.actor]
        assert loaded.action == policy.action == "share"

    def test_know_whether_their_actions_are_clipped_or_squashed(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(len(FEATURES), 1))
        plain = layers(torch.from_numpy(observations())).detach().numpy()
        expected = {"tanh": np.tanh(3 * plain), "clip": np.clip(3 * plain, -1, 1)}
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.mul_(3.0)
        for bound, actions in expected.items():
            env = PruningEnv(problem=toy_problem(), action="ratio")
            save_policy(policy_of(layers, env, bound), tmp_path / "policy.safetensors")
            np.testing.assert_allclose(actions_of(load_policy(tmp_path / "policy.safetensors")), actions, atol=1e-6)

    def test_of_releases_that_knew_no_bound_are_squashed(self, tmp_path: Path) -> None:
        path = policy_file(tmp_path)
        assert isinstance(load_policy(path).actor[-1], nn.Tanh)

    def test_with_an_unknown_bound_are_refused(self, tmp_path: Path) -> None:
        path = policy_file(tmp_path, bound="wrap")
        with pytest.raises(
            WeightsError, match=r"policy\.safetensors' is damaged: bound: given 'wrap'; must be 'tanh' or 'clip'"
        ):
            load_policy(path)


def policy_file(folder: Path, **about: Any) -> Path:
    """A linear policy of zeros, with more entries in its metadata."""
    tensors = {"0.weight": torch.zeros(1, len(FEATURES)), "0.bias": torch.zeros(1)}
    metadata = {"version": 1, "action": "share", "features": FEATURES} | about
    path = folder / "policy.safetensors"
    path.write_bytes(save(tensors, {"prune_env.policy": json.dumps(metadata)}))
    return path


def with_rises(problem: PruningProblem, rises: Sequence[float]) -> PruningProblem:
    """The problem, with the given rises of the loss in place of its probes' results, in the units' order."""
    problem.loss_rises = dict(zip((unit.name for unit in problem.budget.units), rises, strict=True))
    return problem


@pytest.mark.parametrize("metric", ["macs", "params"])
class TestRules:
    @pytest.mark.parametrize("round_to", [1, 4])
    def test_an_exponent_of_zero_is_the_uniform_plan(self, metric: str, round_to: int) -> None:
        problem = with_rises(problem_of(metric=metric, round_to=round_to), [0.5, 1e-3, 2.0, 0.1])
        assert power_widths(problem, 0.0).tolist() == problem.budget.uniform().tolist()
        assert power_widths(problem, 0.5).tolist() != problem.budget.uniform().tolist()

    @pytest.mark.parametrize("keep", [0.1, 0.3, 0.6, 0.95, 1.0])
    @pytest.mark.parametrize("power", POWERS)
    def test_the_greedy_rule_spends_the_budget_and_no_more(self, metric: str, keep: float, power: float) -> None:
        problem = with_rises(problem_of(metric=metric, keep=keep, min_keep=0.05), [0.5, 1e-3, 2.0, 0.1])
        budget = problem.budget
        widths = greedy_widths(problem, power)
        assert budget.cost(widths) <= budget.limit
        assert (widths >= budget.least).all()
        assert (widths <= budget.channels).all()
        wider = [widths + np.eye(len(widths), dtype=np.int64)[i] for i in range(len(widths))]
        assert all(budget.cost(each) > budget.limit or (each > budget.channels).any() for each in wider)

    @pytest.mark.parametrize("round_to", [1, 4, 5])
    def test_the_greedy_rule_keeps_to_the_widths_that_are_allowed(self, metric: str, round_to: int) -> None:
        problem = with_rises(problem_of(metric=metric, round_to=round_to), [0.5, 1e-3, 2.0, 0.1])
        widths = greedy_widths(problem, 1.0)
        assert problem.budget.cost(widths) <= problem.budget.limit
        assert all(width == problem.budget.allowed(number, width) for number, width in enumerate(widths.tolist()))

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.parametrize(
        "rule", [lambda problem: greedy_widths(problem, 1.0), lambda problem: power_widths(problem, 0.3)]
    )
    def test_keep_more_of_a_unit_whose_probe_showed_more(self, metric: str, number: int, rule: Any) -> None:
        def kept(rise: float) -> int:
            rises = [0.1] * 4
            rises[number] = rise
            return int(rule(with_rises(problem_of(metric=metric), rises))[number])

        assert kept(0.01) < kept(0.1) < kept(1.0)

    def test_take_a_loss_that_falls_for_one_that_hardly_rises(self, metric: str) -> None:
        falling = with_rises(problem_of(metric=metric), [0.1, -0.2, 0.1, 0.1])
        level = with_rises(problem_of(metric=metric), [0.1, 0.0, 0.1, 0.1])
        assert greedy_widths(falling, 1.0).tolist() == greedy_widths(level, 1.0).tolist()
        assert power_widths(falling, 0.3).tolist() == power_widths(level, 0.3).tolist()


def test_the_rules_go_by_what_the_probes_have_measured() -> None:
    problem = problem_of()
    trials: list[Trial] = []
    problem.listeners.append(trials.append)
    widths = greedy_widths(problem, 1.0), power_widths(problem, 0.3)
    assert [trial.proposed_by for trial in trials] == ["probe"] * PROBES
    rises = [trial.outcome.loss - problem.baseline.loss for trial in trials]
    told = with_rises(problem_of(), rises)
    assert [each.tolist() for each in widths] == [greedy_widths(told, 1.0).tolist(), power_widths(told, 0.3).tolist()]


class TestRefusals:
    @pytest.mark.parametrize(("given", "meant"), [("ddgp", "ddpg"), ("randon", "random"), ("gredy", "greedy")])
    def test_of_a_search_that_does_not_exist_offer_the_nearest(self, given: str, meant: str) -> None:
        with pytest.raises(ConfigError, match=rf"^agent\.name: .* search '{given}'; did you mean '{meant}'\?"):
            check_named_search(config_of(given))

    def test_of_a_name_like_no_other_list_all_searches(self) -> None:
        with pytest.raises(ConfigError, match="known: " + ", ".join(sorted(SEARCHES))):
            check_named_search(config_of("xyzzy"))

    @pytest.mark.parametrize("name", SEARCHES.names())
    def test_of_searches_without_probes_hit_those_that_go_by_them(self, name: str) -> None:
        config = config_of(name, sensitivity={"probe_keep": None})
        if name in ("greedy", "power", "cma_from_rules"):
            with pytest.raises(ConfigError, match=rf"^sensitivity\.probe_keep: null given, but the search '{name}'"):
                check_named_search(config)
        else:
            without = FINITE | {"replay": 1}
            assert len(search_trials(problem_of(probe_keep=None), config)) == without.get(name, EVALUATIONS)

    @pytest.mark.parametrize("name", SEARCHES.names())
    def test_of_too_few_evaluations_hit_those_that_probe(self, name: str) -> None:
        problem, config = problem_of(), config_of(name, evaluations=PROBES)
        if SEARCHES.find(name).probes:
            with pytest.raises(ConfigError, match=r"^search\.evaluations: 4 given, but the evidence alone takes 4,"):
                check_evaluations(problem, config)
        else:
            check_evaluations(problem, config)
        check_evaluations(problem, config_of(name, evaluations=PROBES + 1))

    def test_of_a_warm_up_without_an_end_count_the_episodes_alone(self) -> None:
        def check(evaluations: int) -> None:
            check_evaluations(problem_of(), config_of("ddpg", evaluations=evaluations, agent={"warmup_episodes": 10}))

        check(PROBES + 21)
        with pytest.raises(ConfigError, match=r"^agent\.warmup_episodes: 10 given, but only 10 episodes are left"):
            check(PROBES + 20)

    def test_of_a_long_warm_up_leave_alone_the_searches_that_have_none(self) -> None:
        for name in ("random", "cma", "ppo"):
            check_evaluations(problem_of(), config_of(name, evaluations=PROBES + 10, agent={"warmup_episodes": 100}))

    @pytest.mark.parametrize(
        "config",
        [
            config_of("ddgp"),
            config_of("greedy", sensitivity={"probe_keep": None}),
            config_of("ddpg", evaluations=PROBES),
            config_of("ddpg", agent={"warmup_episodes": 100}),
        ],
        ids=["unknown", "no probes", "few evaluations", "long warm-up"],
    )
    def test_come_before_anything_is_tried(self, config: RunConfig) -> None:
        problem = problem_of()
        with pytest.raises(ConfigError):
            train_agent(problem, config)
        assert (problem.trials, problem.listeners) == (0, [])


@pytest.mark.parametrize("name", ["cma", "tpe"])
def test_an_optimiser_climbs_a_reward_that_is_not_accuracy_alone(name: str) -> None:
    def slim(outcome: Outcome, baseline: Outcome) -> float:
        return -outcome.params / baseline.params

    config = config_of(name, evaluations=80, reward={"name": "toy:slim"})
    rewards = [trial.reward for trial in search_trials(problem_of(reward=slim), config)]
    assert np.mean(rewards[-20:]) > np.mean(rewards[:20]) + 0.002


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cma", "tpe"])
def test_an_optimiser_goes_by_the_loss_where_a_reward_of_ones_own_says_that_it_ranks_as_quality(name: str) -> None:
    def silent(outcome: Outcome, baseline: Outcome) -> float:  # noqa: ARG001
        return outcome.quality - 1.0

    def telling(outcome: Outcome, baseline: Outcome) -> float:
        return silent(outcome, baseline)

    telling.ranks_as_quality = True  # type: ignore[attr-defined]

    def widths(reward: Any) -> list[Mapping[str, int]]:
        return [trial.plan.widths for trial in search_trials(problem_of(reward=reward), config_of(name))]

    assert widths(telling) == widths("error")
    assert widths(silent) != widths("error")
