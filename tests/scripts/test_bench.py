"""The benchmarks at a tiny size: their numbers must hang together, whatever the machine."""

import json

import pytest
import torch
from stable_baselines3 import SAC
from test_cli import cli, digits, in_one_line  # noqa: F401  (cli is a fixture)
from toy import digits_config, image_set, toy_problem, toy_resnet, toy_walk

from agents.ddpg import PruningDDPG, PruningTD3
from prune_env.data import ImageSet
from prune_env.evaluation.execution import ExecutionSettings
from scripts.bench_episode import ready_bench
from scripts.bench_rewards import OnePass

GIVEN = ["execution.layout=channels_last", "execution.dtype=float32", "execution.folded=true", "execution.batch=64"]


def test_an_episode_is_more_than_its_evaluation_and_that_more_than_its_forward_passes(cli):  # noqa: F811
    code, out, err = cli("bench", "episode", *digits(*GIVEN), "--rounds", 3, "--episodes", 4, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["plans"] == 3
    assert found["images"] == [60, 40]
    assert found["execution"] == {
        "layout": "channels_last",
        "dtype": "float32",
        "folded": True,
        "batch": 64,
        "threads": 1,
    }
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
    bench = ready_bench(digits_config(*GIVEN, f"agent.name={name}"), episodes=0)
    assert type(bench.agent) is algorithm


@pytest.mark.parametrize("name", ["uniform", "cma", "ppo"])
def test_a_search_that_does_not_learn_after_each_episode_is_refused(cli, name):  # noqa: F811
    code, out, err = cli("bench", "episode", *digits(*GIVEN, f"agent.name={name}"))
    assert (code, out) == (2, "")
    said = in_one_line(err)
    assert f"agent.name: {name} given" in said
    assert "allowed are ddpg, td3, sac. Give agent.name=ddpg." in said


def test_an_episode_is_told_in_words(cli):  # noqa: F811
    code, out, _ = cli("bench", "episode", *digits(*GIVEN), "--rounds", 1, "--episodes", 0)
    assert code == 0
    assert "Evaluation over limit" in in_one_line(out)


def test_cheaper_rewards_are_ranked_against_the_whole_one(cli):  # noqa: F811
    code, out, err = cli("bench", "rewards", *digits(*GIVEN), "--plans", 12, "--json")
    assert code == 0, err
    found = json.loads(out)
    whole, *cheaper = found["rows"]
    assert found["plans"] == 12
    assert whole["spearman"] == pytest.approx(1.0)
    assert whole["best_in_common"] == 10
    assert whole["mean_difference"] == 0
    assert {row["name"] for row in cheaper} >= {"bfloat16", "20 calibration images", "30 reward images"}
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
