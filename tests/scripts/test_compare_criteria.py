"""`prune-env compare --criteria`: the same widths with every criterion."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from toy import digits_file, lines_in

from prune_env.commands.compare import compare, criteria_of
from prune_env.common.errors import ConfigError, RunError
from prune_env.criteria import known_criteria
from prune_env.runs.criterion_comparison import MEASURES

NAMES = ["l1", "random", "consumer_error"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(folder, "fidelity.images=64", "execution.threads=1")


def measured(config: Path, *overrides: str, names: str = ",".join(NAMES), seeds: int = 2) -> Any:
    out = io.StringIO()
    with redirect_stdout(out):
        compare(config, list(overrides), criteria=names, seeds=seeds, as_json=True)
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the printed record."""
    folder = tmp_path_factory.mktemp("work") / "criteria"
    return folder, measured(config, f"run.directory={folder}")


@pytest.mark.slow
def test_every_criterion_has_its_accuracies_and_its_seconds(finished: tuple[Path, Any]) -> None:
    _, found = finished
    assert list(found["criteria"]) == NAMES
    for criterion in found["criteria"].values():
        assert criterion["seconds"] >= 0
        assert len(criterion["seeds"]) == 2
        for key in MEASURES:
            values = [seed[key] for seed in criterion["seeds"]]
            assert all(0 <= value <= 1 for value in values)
            assert criterion[key] == pytest.approx(sum(values) / 2)
    assert 0 < found["peak_memory_gb"] < 100
    assert found["dense"] > 0.5


def test_recalibration_and_repair_bring_accuracy_back(finished: tuple[Path, Any]) -> None:
    means = finished[1]["criteria"]["consumer_error"]
    assert means["cut"] < means["recalibrated"] < means["repaired"]


def test_criteria_and_seeds_give_different_numbers(finished: tuple[Path, Any]) -> None:
    rows = [tuple(seed.values()) for one in finished[1]["criteria"].values() for seed in one["seeds"]]
    assert len(set(rows)) == len(rows)


def test_a_criterion_that_was_measured_is_not_measured_again(config: Path, finished: tuple[Path, Any]) -> None:
    folder, before = finished
    files = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    again = measured(config, f"run.directory={folder}")
    assert again["criteria"] == before["criteria"]
    assert {path: path.read_bytes() for path in folder.rglob("*.jsonl")} == files


def test_more_criteria_only_add(config: Path, tmp_path: Path) -> None:
    measured(config, f"run.directory={tmp_path / 'c'}", names="l2", seeds=1)
    file = tmp_path / "c" / "seed-0" / "criteria.jsonl"
    before = file.read_bytes()
    measured(config, f"run.directory={tmp_path / 'c'}", names="l2,bn_scale", seeds=1)
    assert file.read_bytes().startswith(before)
    assert [record["criterion"] for record in lines_in(file)] == ["l2", "bn_scale"]


def test_other_settings_are_refused_in_the_same_folder(config: Path, finished: tuple[Path, Any]) -> None:
    with pytest.raises(RunError, match=r"other settings.*run\.directory"):
        measured(config, f"run.directory={finished[0]}", "budget.keep=0.4")


def test_a_criterion_that_refuses_the_network_is_left_out_and_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(config, f"run.directory={tmp_path / 'c'}", names="l1,benchmarks.control_criteria:hessian", seeds=1)
    assert list(found["criteria"]) == ["l1"]
    assert "benchmarks.control_criteria:hessian is left out" in " ".join(capsys.readouterr().err.split())


def test_where_every_criterion_refuses_the_network_it_is_an_error(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every criterion given was left out"):
        measured(config, f"run.directory={tmp_path / 'c'}", names="benchmarks.control_criteria:hessian", seeds=1)


def test_the_table_has_every_criterion_and_measure(
    config: Path, finished: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    compare(config, [f"run.directory={finished[0]}"], criteria=",".join(NAMES), seeds=2)
    shown = " ".join(capsys.readouterr().out.split())
    for words in (*NAMES, "recalibrated", "fine-tuned", "uniform widths"):
        assert words in shown


def test_names_are_read_and_unknown_ones_are_refused() -> None:
    assert criteria_of("l1, l2,l1") == ["l1", "l2"]
    assert criteria_of("all") == known_criteria()
    with pytest.raises(ConfigError, match="did you mean 'taylor'"):
        criteria_of("taylr")
    controls = "benchmarks.control_criteria:lobs_diagonal"
    assert criteria_of(f"{controls},all,l1") == [controls, *known_criteria()]
    with pytest.raises(ConfigError, match=r"--criteria: criterion 'no\.such:thing': module .* cannot be imported"):
        criteria_of("no.such:thing")
    with pytest.raises(ConfigError, match="--criteria: none given"):
        criteria_of(" , ")
