"""`prune-env compare`: searches side by side, and never the same work twice."""

import io
import itertools
import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import digits_config, digits_file, rows_of

from prune_env import RunConfig
from prune_env.commands.compare import compare
from prune_env.commands.report import report
from prune_env.common.errors import ConfigError, RunError
from prune_env.report.comparison_figure import Band, comparison_picture
from prune_env.report.reading import read_run
from prune_env.report.search_comparison import render
from prune_env.report.whole_runs import run_comparison
from prune_env.runs.intervals import Interval, bands
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.seed_results import SeedResult, as_record, best_so_far, wins

pytestmark = pytest.mark.slow

SEARCHES = ["uniform", "power", "tpe", "ddpg"]
EVALUATIONS = 20
MILESTONE = 7


class TestBands:
    def test_of_a_constant_are_the_constant(self) -> None:
        low, high = bands(np.array([[0.5, 0.7]] * 4))
        assert low == pytest.approx([0.5, 0.7])
        assert high == pytest.approx([0.5, 0.7])

    def test_of_a_single_seed_are_its_values(self) -> None:
        low, high = bands(np.array([[0.5, 0.7]]))
        assert low.tolist() == high.tolist() == [0.5, 0.7]

    def test_of_two_seeds_reach_from_one_to_the_other(self) -> None:
        low, high = bands(np.array([[0.2, 0.9], [0.6, 0.1]]))
        assert low == pytest.approx([0.2, 0.1])
        assert high == pytest.approx([0.6, 0.9])

    def test_leave_out_what_fewer_than_one_resample_in_40_shows(self) -> None:
        # Of the resamples of three seeds, 1/27 have the mean 3. Of those of four, 1/256 have 4, and 13/256 at least 3.
        assert [float(end[0]) for end in bands(np.array([[0.0], [0.0], [3.0]]))] == [0.0, 3.0]
        assert [float(end[0]) for end in bands(np.array([[0.0], [0.0], [0.0], [4.0]]))] == [0.0, 3.0]

    def test_agree_with_all_resamples_there_are(self) -> None:
        values = np.random.default_rng(3).normal(size=(5, 3))
        means = np.array([values[list(rows)].mean(axis=0) for rows in itertools.product(range(5), repeat=5)])
        low, high = bands(values)
        for below, above in ((means < low, means > low), (means > high, means < high)):
            assert (below.mean(axis=0) < 0.04).all()
            assert (above.mean(axis=0) < 0.98).all()

    def test_are_the_same_each_time_and_enclose_the_mean(self) -> None:
        values = np.random.default_rng(4).random((3, 20))
        (low, high), again = bands(values), bands(values)
        assert np.array_equal([low, high], again)
        assert (low <= values.mean(axis=0)).all()
        assert (values.mean(axis=0) <= high).all()
        assert (low < high).all()


class TestAnInterval:
    def test_of_one_seed_has_no_ends(self) -> None:
        interval = Interval.of([0.912])
        assert interval == Interval(0.912, None, None)
        assert str(interval) == "91.20"

    def test_of_several_seeds_has_the_ends_of_the_bands(self) -> None:
        interval = Interval.of([0.5, 0.7])
        assert vars(interval) == pytest.approx({"mean": 0.6, "low": 0.5, "high": 0.7})
        assert str(interval) == "60.00 (50.0 to 70.0)"


def run_of(folder: Path, *trials: tuple[str, float, float]) -> RunDirectory:
    """A run with the given evaluations: kind, reward and accuracy."""
    run = RunDirectory.create(folder / "run")
    for number, (kind, reward, accuracy) in enumerate(trials):
        measured = {"loss": 1.0, "macs": 9, "params": 9, "images": None, "cached": False, "seconds": 0.1, "widths": {}}
        run.append_evaluation({"number": number, "kind": kind, "reward": reward, "accuracy": accuracy, **measured})
    return run


class TestTheBestSoFar:
    def test_is_the_uniform_plan_until_the_search_has_one_of_its_own_however_bad(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 8, 0.8), ("ddpg", 5, 0.5), ("ddpg", 4, 0.4), ("ddpg", 7, 0.7))
        curve, records = best_so_far(run, "ddpg", 3, "accuracy")
        assert curve.tolist() == [0.5, 0.5, 0.7]
        assert [record.number for record in records] == [1, 1, 3]

    def test_counts_probes_and_never_takes_one(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 8, 0.8), ("probe", 9, 0.9), ("probe", 9, 0.95), ("ddpg", 5, 0.5))
        curve, records = best_so_far(run, "ddpg", 3, "accuracy")
        assert curve.tolist() == [0.8, 0.8, 0.5]
        assert [record.kind for record in records] == ["uniform", "uniform", "ddpg"]

    def test_stays_where_a_search_ends_early(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 8, 0.8), ("power", 5, 0.5), ("power", 9, 0.9))
        curve, records = best_so_far(run, "power", 5, "accuracy")
        assert curve.tolist() == [0.5, 0.9, 0.9, 0.9, 0.9]
        assert len(records) == 5

    def test_of_the_uniform_search_is_its_own_trial(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 8, 0.8), ("uniform", 8, 0.8))
        curve, records = best_so_far(run, "uniform", 2, "accuracy")
        assert curve.tolist() == [0.8, 0.8]
        assert [record.number for record in records] == [1, 1]

    def test_goes_by_the_reward_and_keeps_the_first_of_two_equals(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 1, 0.8), ("tpe", 2, 0.6), ("tpe", 1, 0.9), ("tpe", 2, 0.7))
        curve, records = best_so_far(run, "tpe", 3, "accuracy")
        assert curve.tolist() == [0.6, 0.6, 0.6]
        assert {record.number for record in records} == {1}

    def test_looks_at_no_more_evaluations_than_were_given(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, ("uniform", 1, 0.1), ("tpe", 2, 0.2), ("tpe", 3, 0.3), ("tpe", 4, 0.4))
        assert best_so_far(run, "tpe", 2, "accuracy")[0].tolist() == [0.2, 0.3]

    def test_of_a_run_without_evaluations_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"run' is damaged.*holds no evaluation"):
            best_so_far(run_of(tmp_path), "tpe", 2, "accuracy")


def outcome(seed: int, early: float, last: float, tested: float = 0.5, seconds: float = 2.0) -> SeedResult:
    return SeedResult(seed, np.array([early, last]), {1: early, 2: last}, tested, seconds)


def table_of(searches: dict[str, list[SeedResult]]) -> list[list[str]]:
    """The cells of the rendered table, row by row."""
    text = io.StringIO()
    Console(file=text, width=200).print(render(searches, "title"))
    cells = [line.split("  ") for line in text.getvalue().splitlines() if line.strip()]
    return [[cell.strip() for cell in line if cell.strip()] for line in cells]


class TestTheTable:
    def test_has_the_best_search_first(self) -> None:
        searches = {
            "worst": [outcome(0, 0.9, 0.2), outcome(1, 0.9, 0.2)],
            "best": [outcome(0, 0.1, 0.8), outcome(1, 0.1, 0.6)],
            "middle": [outcome(0, 0.1, 0.9), outcome(1, 0.1, 0.3)],
        }
        title, headings, *rows = table_of(searches)
        assert title == ["title"]
        assert headings == ["search", "best after 1", "best after 2", "area", "test set", "seeds won", "seconds"]
        rows = [row for row in rows if len(row) == len(headings)]
        assert [row[0] for row in rows] == ["best", "middle", "worst"]
        assert rows[0][1:] == [
            "10.00 (10.0 to 10.0)",
            "70.00 (60.0 to 80.0)",
            "40.00",
            "50.00 (50.0 to 50.0)",
            "1",
            "2",
        ]

    def test_of_one_seed_has_no_intervals(self) -> None:
        rows = table_of({"one": [outcome(0, 0.1, 0.25, tested=0.75, seconds=59.6)]})
        assert rows[-1] == ["one", "10.00", "25.00", "17.50", "75.00", "1", "60"]


class TestSeedsWon:
    def test_are_those_in_which_a_search_beats_every_other(self) -> None:
        searches = {
            "a": [outcome(0, 0.0, 0.9), outcome(1, 0.0, 0.5), outcome(2, 0.0, 0.9)],
            "b": [outcome(0, 0.0, 0.8), outcome(1, 0.0, 0.6), outcome(2, 0.0, 0.8)],
            "c": [outcome(0, 0.0, 0.7), outcome(1, 0.0, 0.4), outcome(2, 0.0, 0.95)],
        }
        assert [wins(searches, name) for name in searches] == [1, 1, 1]

    def test_are_nobodys_where_two_are_equal_and_only_the_end_counts(self) -> None:
        searches = {"a": [outcome(0, 0.9, 0.5)], "b": [outcome(0, 0.1, 0.5)], "c": [outcome(0, 0.95, 0.1)]}
        assert [wins(searches, name) for name in searches] == [0, 0, 0]

    def test_are_all_of_a_search_that_is_alone(self) -> None:
        assert wins({"a": [outcome(0, 0.0, 0.1), outcome(1, 0.0, 0.2)]}, "a") == 2


def test_the_record_of_a_search_has_means_intervals_and_what_each_seed_gave() -> None:
    found = as_record({"a": [outcome(3, 0.2, 0.6, 0.5, 1.0), outcome(4, 0.4, 0.8, 0.7, 2.0)]}, "accuracy")
    assert json.loads(json.dumps(found)) == {
        "a": {
            "mean_best": pytest.approx(0.7),
            "ci_low": pytest.approx(0.6),
            "ci_high": pytest.approx(0.8),
            "at": {"1": pytest.approx({"mean": 0.3, "low": 0.2, "high": 0.4})},
            "area": pytest.approx(0.5),
            "test_accuracy": pytest.approx(0.6),
            "seconds": pytest.approx(1.5),
            "seeds": [3, 4],
            "best": [0.6, 0.8],
            "tested": [0.5, 0.7],
        }
    }


def test_the_record_of_a_single_seed_has_no_interval() -> None:
    found = as_record({"a": [outcome(0, 0.2, 0.6)]}, "accuracy")["a"]
    assert (found["mean_best"], found["ci_low"], found["ci_high"]) == (0.6, None, None)
    assert found["at"] == {"1": {"mean": 0.2, "low": None, "high": None}}


def test_the_picture_names_every_search_in_the_order_in_which_they_end() -> None:
    ends = {"ddpg": 0.7, "somebody's own": 0.9, "uniform": 0.8}
    drawn = {
        name: Band(*(np.linspace(0.1, end, 5) + shift for shift in (0.0, -0.05, 0.05))) for name, end in ends.items()
    }
    (axes,) = comparison_picture("title", drawn, "accuracy").axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["somebody's own", "uniform", "ddpg"]
    assert [np.max(line.get_xdata()) for line in axes.lines] == [5, 5, 5]
    assert axes.get_ylim()[0] == pytest.approx(2 * 0.7 - 0.9 - 0.05)
    assert axes.get_ylim()[1] >= 0.95


def compared(config: Path, folder: Path, *overrides: str, searches: Sequence[str] = SEARCHES, **options: Any) -> Any:
    """What ``prune-env compare --json`` prints."""
    out = io.StringIO()
    options = {"evaluations": EVALUATIONS, "seeds": 2, **options}
    with redirect_stdout(out):
        compare(config, [f"run.directory={folder}", *overrides], searches=",".join(searches), as_json=True, **options)
    return json.loads(out.getvalue())


def runs_in(folder: Path) -> dict[str, RunDirectory]:
    return {
        path.parent.relative_to(folder).as_posix(): RunDirectory.open(path.parent)
        for path in sorted(folder.glob("seed-*/*/config.yaml"))
    }


def written_in(run: RunDirectory) -> dict[str, int]:
    """The time at which each file of a run was written; reports are left out, because new rivals are drawn in them."""
    files = (path for path in run.root.rglob("*") if path.is_file() and path.stem != "report")
    return {path.relative_to(run.root).as_posix(): path.stat().st_mtime_ns for path in files}


def evaluations_of(run: RunDirectory) -> list[dict[str, Any]]:
    """The records of a run's evaluations, without the seconds and without the mark of cached plans."""
    return [{key: row[key] for key in row if key not in ("seconds", "cached")} for row in rows_of(run)]


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    searches = {
        name: {key: found[key] for key in found if key != "seconds"} for name, found in record["searches"].items()
    }
    return {**record, "searches": searches, "directory": None}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(folder)


@pytest.fixture(scope="module")
def grown(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, dict[str, dict[str, int]]]:
    """A comparison of one seed to which a second was added; not to be changed.

    Its folder, what was printed both times, and when the files of each run were written at first.
    """
    folder = tmp_path_factory.mktemp("runs") / "compare"
    first = compared(config, folder, seeds=1)
    written = {name: written_in(run) for name, run in runs_in(folder).items()}
    return folder, first, compared(config, folder, seeds=2), written


@pytest.fixture
def folder(grown: tuple[Path, Any, Any, Any], tmp_path: Path) -> Path:
    """A comparison to change."""
    shutil.copytree(grown[0], tmp_path / "compare")
    return tmp_path / "compare"


class TestTheForm:
    def test_of_the_first_run_of_a_seed_is_that_of_every_search_added_later(self, config: Path, tmp_path: Path) -> None:
        compared(config, tmp_path / "c", "execution.batch=37", searches=["uniform"], seeds=1)
        compared(config, tmp_path / "c", "execution.batch=null", searches=["random"], seeds=1, evaluations=EVALUATIONS)
        settings = {name: RunConfig.load(run.config).execution for name, run in runs_in(tmp_path / "c").items()}
        assert settings["seed-0/random"] == settings["seed-0/uniform"]
        assert settings["seed-0/random"].batch == 37

    def test_of_runs_that_were_measured_in_different_ones_is_told(self, config: Path, folder: Path) -> None:
        run = runs_in(folder)["seed-0/tpe"]
        batch = RunConfig.load(run.config).execution.batch
        run.config.write_text(run.config.read_text().replace(f"  batch: {batch}\n", "  batch: 37\n"))
        with pytest.raises(RunError, match=r"measured with other execution\.\*.*Move one of them away"):
            compared(config, folder, "execution.batch=null", seeds=1)

    def test_that_is_given_otherwise_than_a_run_has_it_is_refused(self, config: Path, folder: Path) -> None:
        with pytest.raises(RunError, match=r"other settings under execution\.batch"):
            compared(config, folder, "execution.batch=41", seeds=1)


class TestAComparison:
    def test_prints_and_keeps_the_numbers_of_every_search(self, grown: tuple[Path, Any, Any, Any]) -> None:
        folder, _, record, _ = grown
        assert json.loads((folder / "compare.json").read_text()) == record
        assert record["model"] == "digits_resnet"
        assert record["budget"] == {"metric": "macs", "keep": 0.5}
        assert record["evaluations"] == EVALUATIONS
        assert list(record["searches"]) == SEARCHES
        runs = runs_in(folder)
        for name, found in record["searches"].items():
            rows = [runs[f"seed-{seed}/{name}"].read_json(runs[f"seed-{seed}/{name}"].summary) for seed in (0, 1)]
            assert found["seeds"] == [0, 1]
            assert found["mean_best"] == pytest.approx(np.mean([row["rows"][-1]["reward_accuracy"] for row in rows]))
            assert found["test_accuracy"] == pytest.approx(np.mean([row["rows"][-1]["test_accuracy"] for row in rows]))
            assert found["seconds"] == pytest.approx(np.mean([row["seconds"] for row in rows]))
            assert found["ci_low"] <= found["mean_best"] <= found["ci_high"]
            assert list(found["at"]) == [str(MILESTONE)]

    def test_of_one_seed_has_no_intervals(self, grown: tuple[Path, Any, Any, Any]) -> None:
        for found in grown[1]["searches"].values():
            assert found["seeds"] == [0]
            assert found["ci_low"] is None
            assert found["ci_high"] is None

    def test_gives_every_search_its_evaluations_and_the_uniform_plan_first(
        self, grown: tuple[Path, Any, Any, Any]
    ) -> None:
        runs = runs_in(grown[0])
        assert list(runs) == sorted(f"seed-{seed}/{name}" for seed in (0, 1) for name in SEARCHES)
        for place, run in runs.items():
            seed, name = place.split("/")
            trials = evaluations_of(run)
            assert trials[0] == evaluations_of(runs[f"{seed}/uniform"])[0]
            assert trials[0]["kind"] == "uniform"
            assert {trial["kind"] for trial in trials[1:]} <= {"probe", name}
            expected = {"uniform": 1, "power": 12 + 7}.get(name, EVALUATIONS)
            assert len(trials) == 1 + expected
        probes = [
            [row for row in evaluations_of(runs[f"seed-0/{name}"]) if row["kind"] == "probe"] for name in SEARCHES
        ]
        assert [len(found) for found in probes] == [0, 12, 0, 12]
        assert probes[1] == probes[3]

    def test_searches_differ_in_what_they_propose(self, grown: tuple[Path, Any, Any, Any]) -> None:
        runs = runs_in(grown[0])
        proposed = {
            json.dumps([row["widths"] for row in rows_of(run) if row["kind"] == place.split("/")[1]][1:])
            for place, run in runs.items()
            if not place.endswith("uniform")
        }
        assert len(proposed) == len(runs) - 2

    def test_leaves_a_picture(self, grown: tuple[Path, Any, Any, Any]) -> None:
        picture = Image.open(grown[0] / "compare.png")
        assert picture.format == "PNG"
        assert min(picture.size) > 400

    def test_leaves_curves_for_tensorboard_each_step_once(self, grown: tuple[Path, Any, Any, Any]) -> None:
        folder = grown[0]
        runs = runs_in(folder)
        for name in SEARCHES:
            log = EventAccumulator(str(folder / "tensorboard" / name))
            log.Reload()
            found = {key: log.Scalars(f"compare/best_accuracy_{key}") for key in ("mean", "low", "high")}
            for events in found.values():
                assert [event.step for event in events] == list(range(1, EVALUATIONS + 1))
            curves = [best_so_far(runs[f"seed-{seed}/{name}"], name, EVALUATIONS, "accuracy")[0] for seed in (0, 1)]
            assert [event.value for event in found["mean"]] == pytest.approx(np.mean(curves, axis=0), abs=1e-6)
            for low, mean, high in zip(found["low"], found["mean"], found["high"], strict=True):
                assert low.value <= mean.value + 1e-6
                assert mean.value <= high.value + 1e-6

    def test_leaves_runs_that_can_be_read_and_reported(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for place, run in runs_in(folder).items():
            record = read_run(run)
            assert record.summary.search == place.split("/")[1]
            assert [row.name for row in record.summary.rows] == ["dense", "uniform", record.summary.search]
            assert record.summary.evaluations == len(rows_of(run))
            assert run.report.is_file()
        run = RunDirectory.open(folder / "seed-0" / "power")
        run.report.unlink()
        report([run.root])
        assert capsys.readouterr().out.strip() == str(run.report)
        assert run.report.is_file()

    def test_measures_the_best_plan_at_the_end_and_after_a_third(self, grown: tuple[Path, Any, Any, Any]) -> None:
        for run in runs_in(grown[0]).values():
            summary = run.read_json(run.summary)
            assert list(summary["best_after"]) == [str(MILESTONE), str(EVALUATIONS)]
            assert summary["best_after"][str(EVALUATIONS)] == summary["rows"][-1]["reward_accuracy"]
            assert summary["best_reward"] == max(
                row["reward"] for row in rows_of(run) if row["kind"] == summary["search"]
            )

    def test_prints_a_table_without_json(self, config: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        compare(config, [f"run.directory={folder}"], ",".join(SEARCHES), evaluations=EVALUATIONS, seeds=2)
        out = capsys.readouterr().out
        for words in (*SEARCHES, "best after 7", "best after 20", "seeds won", "compare.png", "mean of 2 seeds"):
            assert words in out


class TestAComparisonRunAgain:
    def test_with_more_seeds_only_adds_them(self, grown: tuple[Path, Any, Any, Any]) -> None:
        folder, first, second, written = grown
        runs = runs_in(folder)
        assert sorted(written) == [f"seed-0/{name}" for name in sorted(SEARCHES)]
        assert {name: written_in(runs[name]) for name in written} == written
        for name, found in second["searches"].items():
            assert found["best"][:1] == first["searches"][name]["best"]
            assert found["tested"][:1] == first["searches"][name]["tested"]

    def test_does_nothing_where_nothing_is_missing(
        self, config: Path, folder: Path, grown: tuple[Path, Any, Any, Any]
    ) -> None:
        before = {name: written_in(run) for name, run in runs_in(folder).items()}
        reported = {name: run.report.stat().st_mtime_ns for name, run in runs_in(folder).items()}
        assert compared(config, folder)["searches"] == grown[2]["searches"]
        assert {name: written_in(run) for name, run in runs_in(folder).items()} == before
        assert {name: run.report.stat().st_mtime_ns for name, run in runs_in(folder).items()} == reported

    def test_does_only_what_is_missing_and_comes_to_the_same(
        self, config: Path, folder: Path, grown: tuple[Path, Any, Any, Any]
    ) -> None:
        runs = runs_in(folder)
        expected = {name: (evaluations_of(run), run.plan.read_bytes()) for name, run in runs.items()}
        shutil.rmtree(runs["seed-1/power"].root)
        for file in (runs["seed-0/tpe"].summary, runs["seed-0/ddpg"].summary, runs["seed-0/ddpg"].plan):
            file.unlink()
        lines = runs["seed-0/ddpg"].evaluations_file.read_bytes().splitlines(keepends=True)
        runs["seed-0/ddpg"].evaluations_file.write_bytes(b"".join(lines[:17]))
        missing = {"seed-1/power", "seed-0/tpe", "seed-0/ddpg"}
        kept = runs["seed-0/tpe"].evaluations_file.read_bytes()
        before = {name: written_in(run) for name, run in runs.items() if name not in missing}

        again = compared(config, folder)
        assert without_seconds(again) == without_seconds(grown[2])
        runs = runs_in(folder)
        assert {name: (evaluations_of(run), run.plan.read_bytes()) for name, run in runs.items()} == expected
        assert {name: written_in(runs[name]) for name in before} == before
        assert runs["seed-0/tpe"].evaluations_file.read_bytes() == kept
        assert runs["seed-0/ddpg"].evaluations_file.read_bytes().startswith(b"".join(lines[:17]))

    def test_with_fewer_searches_and_seeds_tells_of_those_alone(
        self, config: Path, folder: Path, grown: tuple[Path, Any, Any, Any]
    ) -> None:
        again = compared(config, folder, searches=["tpe", " uniform", "tpe"], seeds=1)
        assert list(again["searches"]) == ["tpe", "uniform"]
        assert again["searches"]["tpe"] == grown[1]["searches"]["tpe"]

    @pytest.mark.parametrize(
        ("options", "overrides", "section"),
        [({"evaluations": 21}, [], "search"), ({}, ["budget.keep=0.4"], "budget"), ({}, ["agent.noise=0.2"], "agent")],
        ids=["evaluations", "budget", "agent"],
    )
    def test_with_other_settings_is_refused(
        self, config: Path, folder: Path, options: dict[str, Any], overrides: list[str], section: str
    ) -> None:
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(
            RunError, match=rf"seed-0/uniform' holds a run with other settings under {section}\..*run\.directory=\.\.\."
        ):
            compared(config, folder, *overrides, **options)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_with_other_images_is_refused(self, config: Path, folder: Path) -> None:
        run = runs_in(folder)["seed-1/tpe"]
        run.summary.unlink()
        run.write_json(run.splits, {**run.read_json(run.splits), "test": []})
        with pytest.raises(RunError, match=r"splits\.json' differs from the current split"):
            compared(config, folder)

    @pytest.mark.parametrize(
        ("damage", "told"),
        [
            ({"best_after": None}, "is damaged: best_after: given None; must be"),
            ({"best_after": {}}, "lacks best_after."),
            ({"rows": []}, "is damaged: rows: given .*; List should have at least 1 item"),
            ({"seconds": "long"}, "is damaged: seconds: given 'long'; must be"),
        ],
    )
    def test_with_a_summary_of_another_kind_is_refused(
        self, config: Path, folder: Path, damage: dict[str, Any], told: str
    ) -> None:
        run = runs_in(folder)["seed-0/tpe"]
        run.write_json(run.summary, {**run.read_json(run.summary), **damage})
        with pytest.raises(RunError, match=rf"tpe/summary\.json' {told}.*It is not of a comparison's run"):
            compared(config, folder)


def test_an_unknown_search_is_refused_with_the_nearest_name(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--searches: there is no agent or search 'dpg'; did you mean 'ddpg'"):
        compared(config, tmp_path / "compare", searches=["uniform", "dpg"])
    with pytest.raises(ConfigError, match=r"--searches: none given; allowed are uniform, random"):
        compared(config, tmp_path / "compare", searches=[" ", ""])
    assert not (tmp_path / "compare").exists()


def test_a_search_that_goes_by_probes_is_refused_without_them(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sensitivity\.probe_keep: null given.*'power'"):
        compared(config, tmp_path / "compare", "sensitivity.probe_keep=null")
    assert not (tmp_path / "compare").exists()


def test_evaluations_that_do_not_suffice_for_a_search_are_refused_before_any_is_run(
    config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the evidence alone takes 12"):
        compared(config, tmp_path / "compare", evaluations=5, seeds=1)
    compared(config, tmp_path / "compare", searches=["power"], evaluations=14, seeds=1)


def test_a_comparison_that_trains_its_network_can_be_interrupted_and_run_again_and_again(tmp_path: Path) -> None:
    settings = digits_config("pretrain.epochs=1", "run.device=cpu")
    (tmp_path / "digits.yaml").write_text(settings.dump_yaml())
    arguments: dict[str, Any] = {"searches": ["uniform", "random"], "evaluations": 6, "seeds": 1}
    first = compared(tmp_path / "digits.yaml", tmp_path / "compare", **arguments)
    shutil.rmtree(tmp_path / "compare" / "seed-0" / "random")
    for _ in range(2):
        again = compared(tmp_path / "digits.yaml", tmp_path / "compare", **arguments)
        assert without_seconds(again) == without_seconds(first)


@pytest.mark.slow
def test_a_comparison_of_plans_that_race_comes_to_the_same_when_a_part_is_done_again(
    config: Path, tmp_path: Path
) -> None:
    folder, searches = tmp_path / "compare", ["random", "ddpg"]
    racing = ("search.racing=true", "execution.batch=8")
    first = compared(config, folder, *racing, searches=searches, seeds=1, evaluations=30)
    run = runs_in(folder)["seed-0/ddpg"]
    expected = evaluations_of(run)
    assert any(row["images"] is not None for row in expected)
    shutil.rmtree(run.root)
    again = compared(config, folder, *racing, searches=searches, seeds=1, evaluations=30)
    assert evaluations_of(run) == expected
    assert without_seconds(again) == without_seconds(first)


def test_searches_that_are_spread_over_processes_leave_the_same_runs(config: Path, tmp_path: Path) -> None:
    names = ["uniform", "random"]
    settings = ["search.evaluations=6"]
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, workers in ((one, 1), (two, 2)):
        given = RunConfig.load(config, [*settings, f"search.workers={workers}"])
        run_comparison(given, folder, names, seeds=1)
    for name in names:
        runs = [RunDirectory.open(folder / "seed-0" / name) for folder in (one, two)]
        rows = [[{k: row[k] for k in row if k != "seconds"} for row in rows_of(run)] for run in runs]
        assert rows[0] == rows[1]
        assert runs[0].plan.read_bytes() == runs[1].plan.read_bytes()
    records = [json.loads((folder / "compare.json").read_text()) for folder in (one, two)]
    assert without_seconds(records[0]) == without_seconds(records[1])
