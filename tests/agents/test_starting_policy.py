"""``agent.policy``: learners start from a policy, and the search replay proposes its plan, or a plan of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import policy_for, toy_policy, toy_problem, toy_resnet, toy_walk

from prune_env import PruningEnv, RunConfig
from prune_env.agents import train_agent
from prune_env.common.errors import BudgetError, ConfigError, PlanMismatchError, UserError
from prune_env.env.observation import FEATURES
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search.policy import Policy, load_policy, save_policy
from prune_env.search.registry import SEARCHES, check_evaluations, check_named_search

LEARNERS = ("ddpg", "td3", "sac", "ppo")
PROBES = 4


def problem_of(**settings: Any) -> PruningProblem:
    return toy_problem(**{"probe_keep": 0.25, **settings})


def config_of(name: str, *overrides: str) -> RunConfig:
    document = {
        "model": {"name": "toy"},
        "data": {"name": "noise"},
        "agent": {"name": name, "hidden": [8]},
        "search": {"evaluations": 14},
    }
    return RunConfig.from_mapping(document, overrides)


def starting(name: str, *overrides: str) -> RunConfig:
    """Settings of a search that starts from the policy of `toy_policy`."""
    return config_of(name, f"agent.policy={clipped() if name == 'ppo' else toy_policy()}", *overrides)


def clipped() -> Path:
    """The policy of `toy_policy`, but with clipped actions, as PPO's are."""
    policy, path = load_policy(toy_policy()), toy_policy().with_name("clipped.safetensors")
    save_policy(Policy(nn.Sequential(*policy.actor[:-1], nn.Hardtanh()), policy.action, policy.granularity), path)
    return path


def trials_of(problem: PruningProblem, config: RunConfig) -> list[Trial]:
    trials: list[Trial] = []
    problem.listeners.append(trials.append)
    train_agent(problem, config)
    return trials


def its_plan(path: Path) -> dict[str, int]:
    problem = problem_of()
    plan = load_policy(path).propose(PruningEnv(problem=problem, action="share")).plan
    assert plan is not None
    return plan.widths


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_starts_with_the_policy_s_weights(name: str) -> None:
    config, seen = starting(name), np.random.default_rng(0).uniform(-1, 1, (9, len(FEATURES))).astype(np.float32)
    search = SEARCHES.find(name)(problem_of(), config)
    given, plain = load_policy(str(config.agent.policy)), SEARCHES.find(name)(problem_of(), config_of(name))
    assert search.policy is not None
    assert plain.policy is not None
    for observation in seen:
        assert search.policy.act(observation) == pytest.approx(given.act(observation), abs=1e-6)
        assert plain.policy.act(observation) != pytest.approx(given.act(observation), abs=1e-3)
    target = getattr(search.agent, "actor_target", None)
    if name in ("ddpg", "td3"):
        assert torch.equal(target.mu[0].weight, search.agent.actor.mu[0].weight)


@pytest.mark.parametrize("demonstrations", ["true", "false"])
def test_the_policy_s_plan_is_tried_before_any_other(demonstrations: str) -> None:
    trials = trials_of(problem_of(), starting("ddpg", f"agent.demonstrations={demonstrations}"))
    own = [trial for trial in trials if trial.proposed_by == "ddpg"]
    assert own[0].plan.widths == its_plan(toy_policy())
    assert len(own) == 14 - PROBES


def test_a_learner_starts_from_the_file_alone() -> None:
    one, again = (trials_of(problem_of(), starting("ddpg")) for _ in range(2))
    assert one == again
    assert one != trials_of(problem_of(), config_of("ddpg"))


def test_replay_proposes_the_policy_s_plan_and_nothing_else() -> None:
    problem = problem_of()
    trials = trials_of(problem, config_of("replay", *policy_for("replay")))
    assert [trial.proposed_by for trial in trials] == ["probe"] * PROBES + ["replay"]
    assert trials[-1].plan.widths == its_plan(toy_policy())
    assert its_plan(toy_policy()) != problem.plan(problem.budget.uniform()).widths


def test_replay_proposes_the_plan_of_a_file_or_of_a_run(tmp_path: Path) -> None:
    plan = toy_walk().plan({"stem": 3, "mid": 5})
    plan.save(tmp_path / "plan.json")
    share = plan.costs.macs / plan.costs.dense_macs
    for place in (tmp_path / "plan.json", tmp_path):
        config = config_of("replay", f"agent.policy={place}")
        problem = problem_of(keep=share)
        check_evaluations(problem, config)
        assert trials_of(problem, config)[-1].plan.kept == plan.kept
    with pytest.raises(BudgetError, match=r"^budget\.keep: 0\.2 given, but the plan of agent\.policy keeps 0\.\d+ of"):
        check_evaluations(problem_of(keep=0.2), config)
    other = problem_of()
    other.walk = toy_walk(toy_resnet(channels=6))
    with pytest.raises(PlanMismatchError):
        check_evaluations(other, config)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("ddpg", ["agent.hidden=[8, 4]"], r"^agent\.hidden: \[8, 4\] given, .* has \[8\]\. Give agent\.hidden=\[8\]"),
        (
            "ddpg",
            ["granularity.action=ratio"],
            r"^granularity\.action: ratio given, but the policy was trained with sh",
        ),
        ("sac", ["granularity.name=group"], r"^granularity\.name: group given, but the policy was trained with chan"),
        ("ppo", [f"agent.policy={toy_policy()}"], r"^agent\.policy: .* bounds its actions by tanh, and ppo by clip"),
        ("td3", ["agent.policy=nowhere.safetensors"], r"^There is no policy at nowhere\.safetensors"),
        ("replay", ["agent.policy=nowhere.json"], r"^nowhere\.json does not exist\. Give a plan\.json, a policy"),
        ("replay", ["agent.policy=null"], r"^agent\.policy: null given, but the search 'replay' replays a policy"),
        ("cma", [], r"^agent\.policy: .* 'cma' starts from no policy\. .* agent\.name: replay, ddpg, td3, sac, ppo"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_before_anything_is_tried(
    name: str, overrides: list[str], words: str
) -> None:
    config, problem = starting(name, *overrides), problem_of()
    with pytest.raises(UserError, match=words):
        train_agent(problem, config)
    assert problem.trials == 0


def test_a_warm_up_counts_the_policy_s_plan_among_the_demonstrations() -> None:
    settings = ("agent.demonstrations=false", "agent.warmup_episodes=9")
    check_evaluations(problem_of(), config_of("ddpg", *settings))
    with pytest.raises(ConfigError, match="only 9 episodes are left"):
        check_evaluations(problem_of(), starting("ddpg", *settings))
    check_named_search(starting("ddpg", *settings))


def test_a_search_of_another_length_begins_as_its_schedule_says() -> None:
    """What a search was planned for decides its first plans, and how long it runs does not."""
    short = trials_of(problem_of(), config_of("ddpg", "search.evaluations=20"))
    longer = trials_of(problem_of(), config_of("ddpg", "search.evaluations=26", "search.schedule=20"))
    other = trials_of(problem_of(), config_of("ddpg", "search.evaluations=26"))
    assert longer[:20] == short
    assert len(longer) == 26
    assert other[:20] != short
