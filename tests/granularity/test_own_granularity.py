"""A user's own granularity works in all commands, and nothing else in the library needs to know of it."""

import json
from pathlib import Path

import pytest
import torch
from own_granularity import MiddleEdit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import digits_file, digits_splits, rows_of, trained_digits

from prune_env import PruningPlan, RunConfig
from prune_env.commands.replay import replay
from prune_env.commands.train import train
from prune_env.common.errors import ConfigError, PlanError
from prune_env.runs.run_directory import RunDirectory
from prune_env.search.policy import load_policy
from prune_env.testing.counts import counted_macs, counted_params

pytestmark = pytest.mark.slow

OWN = "own_granularity:Middle"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(
        folder,
        f"granularity.name={OWN}",
        "granularity.most=3",
        "search.evaluations=12",
        "sensitivity.probe_keep=null",
        "agent.warmup_episodes=8",
    )


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("runs") / "own"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


def test_a_search_finds_plans_with_its_edits_within_the_budget(run: RunDirectory) -> None:
    rows = rows_of(run)
    assert any("middle" in row for row in rows)
    plan = PruningPlan.load(run.plan)
    assert all(row["macs"] <= 0.5 * plan.costs.dense_macs for row in rows)


def test_its_plan_is_exact_and_smaller(run: RunDirectory) -> None:
    plan = PruningPlan.load(run.plan)
    names = ["layer1.0.conv1", "layer2.1.conv1"]
    edited = plan.model_copy(update={"edits": {"middle": {name: MiddleEdit() for name in names}}})
    model, images = trained_digits(), digits_splits().reward().images
    small = edited.apply(model)
    assert [small.get_submodule(name).kernel_size for name in names] == [(1, 1)] * 2
    masked = plan.model_copy(update={"edits": {}}).apply(model)
    for name in names:
        weight = masked.get_submodule(name).get_parameter("weight")
        middle = weight.data[..., 1, 1].clone()
        weight.data.zero_()
        weight.data[..., 1, 1] = middle
    with torch.no_grad():
        torch.testing.assert_close(small(images), masked(images), rtol=1e-4, atol=1e-5)
    again = PruningPlan.from_json(edited.to_json())
    assert again == edited


def test_the_costs_that_a_plan_says_are_those_of_its_network(run: RunDirectory) -> None:
    image = digits_splits().reward().images[:1]
    plan = PruningPlan.load(run.plan)
    small = plan.apply(trained_digits())
    assert (counted_macs(small, image), counted_params(small)) == (plan.costs.macs, plan.costs.params)


def test_its_policy_names_it_and_is_replayed(
    run: RunDirectory, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = load_policy(run.policy)
    assert (policy.granularity, policy.limits) == (OWN, {"granularity.most": 3})
    capsys.readouterr()
    replay(run.policy, config, as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["replay"]["macs"] <= 0.5 * rows["dense"]["macs"]
    with pytest.raises(ConfigError, match=r"granularity\.most: 1 given, but the policy was trained with 3"):
        policy.check(RunConfig.load(config, ["granularity.most=1"]))


def test_tensorboard_and_the_report_show_what_it_draws(run: RunDirectory) -> None:
    log = EventAccumulator(str(run.tensorboard))
    log.Reload()
    assert "units/middle/edited" in log.Tags()["scalars"]
    assert "units/middle" in log.Tags()["images"]
    assert "<h2>Middles</h2>" in run.report.read_text()


def test_an_edit_of_an_unknown_kind_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    document = json.loads(run.plan.read_text())
    document["edits"] = {"upside_down": {"conv1": {}}}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=r"there is no kind of edit 'upside_down'; known: "):
        PruningPlan.load(tmp_path / "plan.json")
