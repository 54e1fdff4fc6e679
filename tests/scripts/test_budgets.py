"""`prune-env train --budgets`: one run for each budget, several at a time."""

import json
from pathlib import Path

import pytest
from toy import digits_file

from prune_env.commands.train import train
from prune_env.common.errors import ConfigError
from prune_env.runs.run_directory import RunDirectory

QUICK = ("agent.name=random", "search.evaluations=3")


def test_no_budget_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--budgets: none given; allowed are shares"):
        train(digits_file(tmp_path, *QUICK), budgets=",")


@pytest.mark.slow
def test_each_budget_has_its_run_and_a_repeated_command_only_does_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = digits_file(tmp_path, *QUICK, "search.workers=2")
    given = [f"run.directory={tmp_path / 'runs'}"]
    train(settings, given, budgets="0.5,0.4", as_json=True)
    runs = [RunDirectory.open(tmp_path / "runs" / f"keep-{keep}") for keep in ("0.5", "0.4")]
    shares = [json.loads(run.plan.read_bytes())["budget"] for run in runs]
    assert [share["keep"] for share in shares] == [0.5, 0.4]
    assert all(share["achieved"] <= share["keep"] for share in shares)
    before = runs[0].summary.stat().st_mtime_ns
    runs[1].summary.unlink()
    capsys.readouterr()
    train(settings, given, budgets="0.5,0.4", as_json=True)
    assert runs[0].summary.stat().st_mtime_ns == before
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [row["budget"]["keep"] for row in found] == [0.5, 0.4]
