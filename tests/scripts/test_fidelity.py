"""`prune-env compare --fidelity`: rewards of plans against their accuracies after fine-tuning."""

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import digits_file, lines_in

from prune_env.commands.compare import compare
from prune_env.common.errors import RunError
from prune_env.runs.fidelity import summarise
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

PLANS = 4


def plans_of(rewards: list[float], tuned: list[float]) -> list[dict[str, Any]]:
    return [
        {"widths": [1], "reward": reward, "accuracy": 0.1 * number, "tuned": after}
        for number, (reward, after) in enumerate(zip(rewards, tuned, strict=True))
    ]


class TestTheRankCorrelation:
    def test_is_one_where_both_agree(self) -> None:
        found = summarise(plans_of([-0.4, -0.3, -0.2, -0.1], [0.5, 0.6, 0.61, 0.99]), "accuracy")
        assert found["spearman"] == pytest.approx(1.0)
        assert found["ci_low"] == pytest.approx(1.0)
        assert found["ci_high"] == pytest.approx(1.0)

    def test_is_minus_one_where_they_are_reversed(self) -> None:
        found = summarise(plans_of([-0.1, -0.2, -0.3, -0.4], [0.5, 0.6, 0.61, 0.99]), "accuracy")
        assert found["spearman"] == pytest.approx(-1.0)
        assert found["ci_high"] == pytest.approx(-1.0)

    @pytest.mark.parametrize(
        ("rewards", "tuned"),
        [([-0.1] * 4, [0.5] * 4), ([-0.1] * 4, [0.1, 0.2, 0.3, 0.4]), ([-0.1, -0.2, -0.3, -0.4], [0.5] * 4)],
        ids=["both", "rewards", "tuned"],
    )
    def test_is_none_where_all_came_to_the_same(self, rewards: list[float], tuned: list[float]) -> None:
        found = summarise(plans_of(rewards, tuned), "accuracy")
        assert (found["spearman"], found["ci_low"], found["ci_high"]) == (None, None, None)
        json.dumps(found, allow_nan=False)

    def test_of_pure_noise_has_an_interval_around_zero(self) -> None:
        generator = np.random.default_rng(0)
        found = summarise(plans_of(generator.random(50).tolist(), generator.random(50).tolist()), "accuracy")
        assert found["ci_low"] < 0 < found["ci_high"]
        assert found["ci_low"] < found["spearman"] < found["ci_high"]

    def test_is_a_number_where_nearly_all_resamples_are_of_one_plan(self) -> None:
        found = summarise(plans_of([-0.2, -0.2, -0.1], [0.5, 0.5, 0.6]), "accuracy")
        assert found["spearman"] == pytest.approx(1.0)
        json.dumps(found, allow_nan=False)


def test_the_means_and_the_best_plans_are_told() -> None:
    found = summarise(plans_of([-0.3, -0.1, -0.2], [0.9, 0.6, 0.3]), "accuracy")
    assert found["plans"] == 3
    assert found["accuracy"] == pytest.approx(0.1)
    assert found["tuned"] == pytest.approx(0.6)
    assert found["best_by_reward_tuned"] == 0.6
    assert found["best_tuned"] == 0.9


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(folder, f"fidelity.plans={PLANS}", "fidelity.images=64")


def measured(config: Path, *overrides: str) -> Any:
    """The output of ``prune-env compare --fidelity --json`` in its default folder."""
    out = io.StringIO()
    with redirect_stdout(out):
        compare(config, list(overrides), fidelity=True, as_json=True)
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The working folder of a finished command and its output; not to be changed."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, measured(config)


@pytest.fixture
def folder(finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the plans' folder, which a test may change; commands run in its parent folder."""
    shutil.copytree(finished[0], tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work" / "runs" / "digits-fidelity"


def test_every_plan_is_rewarded_and_fine_tuned(finished: tuple[Path, Any]) -> None:
    plans = lines_in(finished[0] / "runs" / "digits-fidelity" / "fidelity.jsonl")
    assert len(plans) == PLANS
    assert len({tuple(plan["widths"]) for plan in plans}) == PLANS
    for plan in plans:
        assert 0.0 <= plan["accuracy"] <= 1.0
        assert 0.0 <= plan["tuned"] <= 1.0
        assert plan["reward"] == pytest.approx(plan["accuracy"] - 1.0)
    assert any(plan["tuned"] != plan["accuracy"] for plan in plans)
    assert finished[1] == {"model": "digits_resnet", **summarise(plans, "accuracy")}


def test_the_same_settings_give_the_same_plans(config: Path, finished: tuple[Path, Any], tmp_path: Path) -> None:
    again = measured(config, f"run.directory={tmp_path / 'again'}")
    assert again == finished[1]
    other = measured(config, f"run.directory={tmp_path / 'other'}", "seed=1")
    assert other != finished[1]


@pytest.mark.parametrize("torn", [False, True], ids=["between plans", "within a line"])
def test_an_interrupted_run_does_only_what_is_missing(
    config: Path, finished: tuple[Path, Any], folder: Path, torn: bool
) -> None:
    place = folder / "fidelity.jsonl"
    whole = place.read_bytes()
    *_, last = lines = whole.splitlines(keepends=True)
    place.write_bytes(b"".join(lines[:-1]) + (last[:30] if torn else b""))
    others = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path != place}
    assert measured(config) == finished[1]
    assert place.read_bytes() == whole
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path != place} == others


def test_a_plan_that_was_measured_is_not_measured_again(config: Path, folder: Path) -> None:
    place = folder / "fidelity.jsonl"
    plans = lines_in(place)
    marked = [{**plans[0], "tuned": 0.123}, *plans[1:2]]
    place.write_text("".join(json.dumps(plan) + "\n" for plan in marked))
    found = measured(config)
    assert lines_in(place) == [*marked, *plans[2:]]
    assert found["tuned"] == pytest.approx(np.mean([0.123, *(plan["tuned"] for plan in plans[1:])]))


def test_a_run_with_nothing_missing_only_tells(config: Path, finished: tuple[Path, Any], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert measured(config) == finished[1]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("override", ["fidelity.images=32", "seed=1", "budget.keep=0.4"])
def test_plans_of_other_settings_are_refused(config: Path, folder: Path, override: str) -> None:
    before = (folder / "fidelity.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"digits-fidelity' holds plans of other settings.*run\.directory=\.\.\."):
        measured(config, override)
    assert (folder / "fidelity.jsonl").read_bytes() == before


def test_other_images_are_refused(config: Path, folder: Path) -> None:
    splits = RunDirectory(folder).read_json(folder / "splits.json")
    RunDirectory(folder).write_json(folder / "splits.json", {**splits, "reward": splits["reward"][1:]})
    with pytest.raises(RunError, match=r"splits\.json' differs from the current split"):
        measured(config)


def test_without_json_a_table_is_printed(
    config: Path, finished: tuple[Path, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(config, fidelity=True)
    out = capsys.readouterr().out
    assert folder.is_dir()
    for words in ("digits_resnet: 4 random plans", "rank correlation", f"{finished[1]['best_tuned']:.2%}"):
        assert words in out
