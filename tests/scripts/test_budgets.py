"""`prune-env train` with several budgets or files: one run for each."""

import json
from pathlib import Path

import pytest
from toy import digits_file

from prune_env.commands.train import runs_of, train
from prune_env.common.errors import ConfigError
from prune_env.runs.run_directory import RunDirectory

QUICK = (
    "agent.name=random",
    "search.evaluations=2",
    "pretrain.epochs=0",
    "sensitivity.enabled=false",
    "data.reward_images=16",
    "data.calibration_images=16",
    "data.test_images=16",
    "execution.layout=contiguous",
    "execution.dtype=float32",
    "execution.folded=false",
    "execution.batch=16",
)


def test_no_budget_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--budgets: none given; allowed are shares"):
        train(digits_file(tmp_path, *QUICK), budgets=",")


def two_files(folder: Path) -> list[Path]:
    """Two files of settings with seeds of their own."""
    found = []
    for seed in (1, 2):
        text = digits_file(folder, *QUICK, f"seed={seed}").read_text()
        found.append(folder / f"net{seed}.yaml")
        found[-1].write_text(text)
    return found


def test_each_file_and_each_budget_has_its_folder(tmp_path: Path) -> None:
    one, two = two_files(tmp_path)
    assert {folder: settings.seed for folder, settings in runs_of([one, two], [], None).items()} == {
        Path("runs/net1"): 1,
        Path("runs/net2"): 2,
    }
    runs = runs_of([one, two], ["run.directory=all"], "0.5,0.4")
    assert [(str(folder), settings.seed, settings.budget.keep) for folder, settings in runs.items()] == [
        ("all/net1/keep-0.5", 1, 0.5),
        ("all/net1/keep-0.4", 1, 0.4),
        ("all/net2/keep-0.5", 2, 0.5),
        ("all/net2/keep-0.4", 2, 0.4),
    ]
    with pytest.raises(ConfigError, match=r"net1\.yaml: another file's run has the folder 'runs/net1' as well"):
        runs_of([one, one], [], None)


@pytest.mark.slow
def test_a_repeated_command_only_does_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = two_files(tmp_path)
    given = [str(two), f"run.directory={tmp_path / 'runs'}"]
    train(one, given, budgets="0.5", as_json=True)
    runs = [RunDirectory.open(tmp_path / "runs" / name / "keep-0.5") for name in ("net1", "net2")]
    plans = [json.loads(run.plan.read_bytes()) for run in runs]
    assert [plan["provenance"]["seed"] for plan in plans] == [1, 2]
    assert all(plan["budget"]["achieved"] <= plan["budget"]["keep"] == 0.5 for plan in plans)
    before = runs[0].summary.stat().st_mtime_ns
    runs[1].summary.unlink()
    capsys.readouterr()
    train(one, given, budgets="0.5", as_json=True)
    assert runs[0].summary.stat().st_mtime_ns == before
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [row["run"] for row in found] == [str(run.root) for run in runs]
