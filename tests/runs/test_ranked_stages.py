"""What an export takes of a run: the better of the recalibrated and the fine-tuned network, as they were recorded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import evaluator_of, toy_walk

from prune_env.common.errors import RunError
from prune_env.runs.evaluating import RunNetworks, StageQuality, ranked_stages
from prune_env.runs.run_directory import RunDirectory


@pytest.fixture(scope="module")
def networks() -> RunNetworks:
    evaluator = evaluator_of(toy_walk())
    plan = evaluator.walk.plan({})
    stages = {name: (evaluator.pruned(plan), plan) for name in ("cut", "recalibrated", "fine-tuned")}
    return RunNetworks(SimpleNamespace(), evaluator, plan, stages)  # type: ignore[arg-type]


def run_with(tmp_path: Path, *rows: dict[str, Any]) -> RunDirectory:
    """A run with the rows of its fine-tuning."""
    run = RunDirectory.create(tmp_path / "run")
    run.write_json(run.root / "finetune" / "summary.json", {"rows": rows})
    return run


@pytest.mark.parametrize(("tuned", "first"), [(0.96, "fine-tuned"), (0.95, "fine-tuned"), (0.94, "recalibrated")])
def test_the_better_network_comes_first(tmp_path: Path, networks: RunNetworks, tuned: float, first: str) -> None:
    rows = [
        {"name": "recalibrated", "test_accuracy": 0.95, "reward_accuracy": 0.99},
        {"name": "fine-tuned", "test_accuracy": tuned, "reward_accuracy": 0.98},
    ]
    ranked = ranked_stages(run_with(tmp_path, *rows), networks)
    assert ranked[0].stage == first
    assert {one.stage: (one.quality, one.images) for one in ranked} == {
        "recalibrated": (0.95, "test"),
        "fine-tuned": (tuned, "test"),
    }


def test_a_fine_tuning_that_the_user_names_comes_first(tmp_path: Path, networks: RunNetworks) -> None:
    rows = [{"name": name, "reward_accuracy": value} for name, value in (("recalibrated", 0.9), ("fine-tuned", 0.8))]
    assert ranked_stages(run_with(tmp_path, *rows), networks, "finetune")[0] == StageQuality(
        "fine-tuned", 0.8, "reward"
    )


def test_without_a_fine_tuning_the_search_s_own_record_counts(tmp_path: Path, networks: RunNetworks) -> None:
    run = RunDirectory.create(tmp_path / "run")
    plain = RunNetworks(
        networks.splits,
        networks.evaluator,
        networks.plan,
        {key: networks.stages[key] for key in ("cut", "recalibrated")},
    )
    measured = networks.evaluator.measure(networks.stages["recalibrated"][0])
    assert ranked_stages(run, plain) == [StageQuality("recalibrated", measured, "reward")]
    run.write_json(run.summary, {"search": "cma", "rows": [{"name": "cma", "test_accuracy": 0.7}]})
    assert ranked_stages(run, plain) == [StageQuality("recalibrated", 0.7, "test")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (5, r"rows: given 5; must be"),
        ([{"test_accuracy": 0.9}], r"rows\.0\.name: Field required"),
        ([{"name": "fine-tuned", "test_accuracy": "[/b]"}], r"test_accuracy of the row 'fine-tuned': given '\[/b\]'"),
        ([{"name": "fine-tuned", "test_accuracy": 1.5}], r"given 1\.5; must be a number from 0 to 1"),
        ([{"name": "fine-tuned"}], r"reward_accuracy of the row 'fine-tuned': given None"),
    ],
)
def test_a_damaged_record_is_refused_by_file_and_field(
    tmp_path: Path, networks: RunNetworks, rows: Any, words: str
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_json(run.root / "finetune" / "summary.json", {"rows": rows})
    with pytest.raises(RunError, match=rf"finetune/summary\.json' is damaged: .*{words}"):
        ranked_stages(run, networks)


def test_a_quality_that_is_no_number_is_refused(tmp_path: Path, networks: RunNetworks) -> None:
    run = run_with(tmp_path)
    (run.root / "finetune" / "summary.json").write_text('{"rows": [{"name": "fine-tuned", "test_accuracy": NaN}]}')
    with pytest.raises(RunError, match=r"summary\.json' is damaged"):
        ranked_stages(run, networks)
