"""The benchmarks at a tiny size: their numbers must be consistent on any machine."""

import json

import pytest
import torch
from stable_baselines3 import SAC
from toy import DIGITS, digits_config, digits_file, image_set, toy_problem, toy_resnet, toy_walk

from prune_env.agents.ddpg import PruningDDPG, PruningTD3
from prune_env.commands.bench_episode import ready_bench
from prune_env.commands.bench_rewards import OnePass
from prune_env.data import ImageSet
from prune_env.evaluation.execution import ExecutionSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path):
    return digits_file(tmp_path)


def test_an_episode_is_more_than_its_evaluation_and_that_more_than_its_forward_passes(cli, config):
    code, out, err = cli("bench", "episode", config, "--rounds", 3, "--episodes", 4, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["plans"] == 3
    assert found["images"] == [DIGITS["data"]["reward_images"], DIGITS["data"]["calibration_images"]]
    assert found["execution"] == DIGITS["execution"]
    assert found["evaluation_s"] < found["episode_s"]
    assert found["phases_s"]["forward"] < found["evaluation_s"]
    parts = sum(found["phases_s"][part] for part in ("slicing", "recalibration", "folding", "forward"))
    assert parts == pytest.approx(found["evaluation_s"], rel=0.5)
    assert sum(found["phases_s"].values()) == pytest.approx(found["episode_s"], rel=0.5)
    assert found["episodes_per_minute"] == pytest.approx(60 / found["episode_s"])
    assert found["rss_episodes"] == 4
    assert {"limit_s", "evaluation_over_limit", "episode_over_limit", "step_us", "slice_ms", "rss_growth_mb"} <= set(
        found
    )


@pytest.mark.parametrize(("name", "algorithm"), [("ddpg", PruningDDPG), ("td3", PruningTD3), ("sac", SAC)])
def test_the_episodes_are_those_of_the_configured_agent(name, algorithm):
    bench = ready_bench(digits_config(f"agent.name={name}"), episodes=0)
    assert type(bench.agent) is algorithm


@pytest.mark.parametrize("name", ["uniform", "cma", "ppo"])
def test_a_search_that_does_not_learn_after_each_episode_is_refused(refused, config, name):
    said = refused("bench", "episode", config, f"agent.name={name}")
    assert f"agent.name: {name} given" in said
    assert "allowed are ddpg, td3, sac. Give agent.name=ddpg." in said


def test_an_episode_is_told_in_words(cli, config):
    code, out, _ = cli("bench", "episode", config, "--rounds", 1, "--episodes", 0)
    assert code == 0
    assert "Evaluation over limit" in " ".join(out.split())


def test_cheaper_rewards_are_ranked_against_the_whole_one(cli, config):
    code, out, err = cli("bench", "rewards", config, "--plans", 12, "--json")
    assert code == 0, err
    found = json.loads(out)
    whole, *cheaper = found["rows"]
    assert found["plans"] == 12
    assert whole["spearman"] == pytest.approx(1.0)
    assert whole["best_in_common"] == 10
    assert whole["mean_difference"] == 0
    assert {row["name"] for row in cheaper} >= {"bfloat16", "20 calibration images", "20 reward images"}
    assert all(-1 <= row["spearman"] <= 1 for row in cheaper)


def test_one_pass_normalises_with_the_reward_batches_own_statistics():
    model = toy_resnet()
    problem = toy_problem(toy_walk(model))
    plan = problem.plan(problem.budget.uniform())
    images = 8 * image_set(400).images + 6  # far from what the batch norms know
    with torch.no_grad():
        labels = plan.apply(model).train()(images).argmax(dim=1)
        unmeasured = (plan.apply(model)(images).argmax(dim=1) == labels).float().mean()
    found = OnePass(problem, ImageSet(images, labels), ExecutionSettings(batch=400)).quality_of(plan)
    assert found > 0.995 > 0.985 > unmeasured
