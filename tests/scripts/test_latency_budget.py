"""A latency budget through the command line: the files of the run, and resuming with the same formula."""

import json
import re
import shutil
from pathlib import Path

import pytest
from toy import digits_file, rows_of

from prune_env import PruningPlan, RunConfig
from prune_env.budget.latency_model import LatencyModel
from prune_env.commands.compare import compare
from prune_env.commands.inspect_walk import inspect_walk
from prune_env.commands.train import train
from prune_env.common.records import read_record
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

SETTINGS = ("budget.metric=latency", "budget.keep=0.9", "env.round_to=null", "search.evaluations=30", "run.device=cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(folder, *SETTINGS)


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with a budget of seconds; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


def test_every_plan_is_within_the_budget_by_the_formula_that_the_run_holds(finished: RunDirectory) -> None:
    model = read_record(finished.latency, LatencyModel)
    plan = PruningPlan.load(finished.plan)
    assert plan.budget is not None
    assert (plan.budget.metric, plan.budget.keep) == ("latency", 0.9)
    assert plan.budget.achieved <= 0.9
    rows = rows_of(finished)
    dense = json.loads(finished.summary.read_text())["rows"][0]
    assert model.error >= 0.0
    assert all(row["latency"] > 0.0 for row in rows)
    plans = [row["latency"] for row in rows if row["kind"] in ("uniform", "ddpg")]
    widest = max(row["latency"] for row in rows if row["kind"] == "probe")
    assert max(plans) < widest
    assert dense["macs"] > plan.costs.macs


def test_what_was_measured_is_in_the_run_s_settings(finished: RunDirectory) -> None:
    assert isinstance(RunConfig.load(finished.config).env.round_to, int)


def test_a_run_is_resumed_with_the_formula_that_it_was_started_with(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "again"
    shutil.copytree(finished.root, root, ignore=shutil.ignore_patterns("summary.json", "report.*", "plan.json"))
    again = RunDirectory.open(root)
    lines = again.evaluations_file.read_bytes().splitlines(keepends=True)
    again.evaluations_file.write_bytes(b"".join(lines[:18]))

    def measured_again(*_: object) -> None:
        pytest.fail("the formula was fitted anew")

    monkeypatch.setattr("prune_env.env.builders.fit_latency", measured_again)
    monkeypatch.setattr("prune_env.env.builders.fastest_multiple", measured_again)
    train(resume=root)
    assert again.plan.read_bytes() == finished.plan.read_bytes()
    told = [[{**row, "seconds": 0} for row in rows_of(run)] for run in (again, finished)]
    assert told[0] == told[1]


def test_searches_that_are_compared_share_one_formula(config: Path, tmp_path: Path) -> None:
    folder = [f"run.directory={tmp_path / 'c'}"]
    compare(config, folder, searches="uniform", seeds=1, evaluations=30)
    compare(config, folder, searches="uniform,random", seeds=1, evaluations=30)
    formulas = {run.read_bytes() for run in tmp_path.glob("c/seed-0/*/latency.json")}
    assert len(formulas) == 1
    assert len(list(tmp_path.glob("c/seed-0/*/latency.json"))) == 2


def test_inspect_tells_how_far_off_the_formula_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_walk(config, ["env.round_to=1"])
    told = capsys.readouterr().out
    assert re.search(r"removable .*\n.* latency ", told)
    out = " ".join(told.split())
    assert "ms a batch of 32 for the dense network" in out
    assert "on networks outside the fit" in out
