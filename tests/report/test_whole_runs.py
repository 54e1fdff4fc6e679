"""Whole runs by one call from Python: what is left on disk, what callbacks hear, and that nothing is printed."""

from html import unescape
from pathlib import Path

import pytest
from toy import digits_config, rows_of, trained_digits

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.models import save_weights
from prune_env.report.whole_runs import finish_with_report, run_comparison, run_search
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import resume_search, search_into, start_search

EVALUATIONS = 18


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Settings of a search of a second or two."""
    weights = tmp_path_factory.mktemp("weights") / "dense.safetensors"
    save_weights(trained_digits(), weights)
    return digits_config(f"model.weights={weights}", f"search.evaluations={EVALUATIONS}", "run.device=cpu")


@pytest.mark.slow
def test_a_search_leaves_a_whole_run_and_is_silent(
    settings: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words: list[str] = []
    trials: list[str] = []
    episodes: list[int] = []
    found = run_search(
        settings,
        tmp_path / "run",
        words.append,
        lambda trial: trials.append(trial.proposed_by),
        lambda episode: episodes.append(episode.number),
    )
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    run = RunDirectory.open(tmp_path / "run")
    assert found.search.run == run
    assert words
    assert trials == [row["kind"] for row in rows_of(run)]
    assert episodes == list(range(found.result.episodes))
    assert run.plan.read_bytes() == found.result.best.plan.to_json()
    assert run.read_json(run.summary) == found.summary
    assert [row.name for row in found.rows] == ["dense", "uniform", "ddpg"]
    assert found.summary["command"] == f"prune-env train {run.config} run.directory=..."
    assert f"prune-env train .../{run.config.name} run.directory=..." in unescape(run.report.read_text())
    assert list(run.tensorboard.iterdir())


@pytest.mark.slow
def test_a_search_that_was_left_ends_as_one_that_was_not(settings: RunConfig, tmp_path: Path) -> None:
    whole = run_search(settings, tmp_path / "whole")
    started = start_search(settings, tmp_path / "left")
    tried = 0

    class LeftError(Exception):
        pass

    def leave(_: object) -> None:
        nonlocal tried
        tried += 1
        if tried == EVALUATIONS - 1:
            raise LeftError

    with pytest.raises(LeftError):
        search_into(started, on_trial=leave)
    found = finish_with_report(resume_search(tmp_path / "left"))
    assert found.search.run.plan.read_bytes() == whole.search.run.plan.read_bytes()
    assert found.search.run.report.is_file()
    with pytest.raises(RunError, match="is finished: there is nothing left to do"):
        resume_search(tmp_path / "left")


@pytest.mark.slow
def test_a_comparison_draws_what_it_finds_and_is_silent(
    settings: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []

    def hear(found: FinishedSearch) -> None:
        ended.append(found.search.settings.agent.name)
        assert found.search.run.report.is_file()

    comparison = run_comparison(settings, tmp_path / "compared", ["uniform", "random"], 1, on_finished=hear)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert ended == ["uniform", "random"]
    assert list(comparison.as_record()["searches"]) == ended
    for name in ("compare.json", "compare.png", "tensorboard"):
        assert (tmp_path / "compared" / name).exists()
