"""RunDirectory: files appear whole or not at all, and nothing is written over."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from prune_env.common.errors import RunError
from prune_env.common.files import atomic_write
from prune_env.common.versions import versions
from prune_env.config import RunConfig
from prune_env.evaluation.execution import ExecutionRecord, ExecutionSettings
from prune_env.runs.run_directory import RunDirectory

TRIAL = {
    "number": 0,
    "kind": "uniform",
    "accuracy": 0.5,
    "loss": 1.5,
    "images": None,
    "cached": False,
    "seconds": 0.25,
    "widths": {"conv1": 3},
    "reward": -0.5,
    "macs": 10,
    "params": 5,
    "latency": None,
    "groups": {"conv1": 2},
}
"""A line of ``evaluations.jsonl``, with a field of granularity group."""

CONFIG = RunConfig.from_mapping({"model": {"name": "resnet20"}, "data": {"name": "cifar10"}})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "first")


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_new_run_is_an_empty_folder(run: RunDirectory) -> None:
    assert run.root.is_dir()
    assert list(run.root.iterdir()) == []


def test_a_run_directory_that_exists_is_refused_and_left_as_it_is(run: RunDirectory) -> None:
    run.write_text(run.plan, "mine")
    with pytest.raises(RunError, match=r"exists already.*nothing is written over.*run\.directory="):
        RunDirectory.create(run.root)
    assert run.plan.read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot be made: Not a directory.*run\.directory="):
        RunDirectory.create(tmp_path / "file" / "a" / "b")


def test_a_file_above_the_folder_is_not_taken_for_the_run_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for call in (RunDirectory.create, RunDirectory.check_free):
        with pytest.raises(RunError, match=r"file.x' cannot be made: Not a directory \('.*file'\); choose another"):
            call(tmp_path / "file" / "x")


class TestAFreeFolder:
    def test_is_told_without_making_anything(self, tmp_path: Path) -> None:
        RunDirectory.check_free(tmp_path / "runs" / "first")
        assert list(tmp_path.iterdir()) == []

    def test_may_be_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        RunDirectory.check_free("runs/first")
        RunDirectory.check_free("first")

    def test_that_a_submitted_ray_job_would_lose_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # `ray job submit` sets this variable for the command of a job, as was seen with Ray 2.60.
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "raysubmit_1"}}')
        monkeypatch.chdir(tmp_path)
        for call in (RunDirectory.create, RunDirectory.check_free):
            with pytest.raises(RunError, match=r"'runs/one' lies in the working directory of a submitted Ray job"):
                call("runs/one")
        RunDirectory.check_free(tmp_path / "runs" / "one")

    @pytest.mark.parametrize("taken", ["folder", "file", "link"])
    def test_that_exists_is_refused_as_create_does(self, tmp_path: Path, taken: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        said = []
        for call in (RunDirectory.create, RunDirectory.check_free):
            with pytest.raises(RunError, match="exists already") as caught:
                call(tmp_path / taken)
            said.append(str(caught.value))
        assert said[0] == said[1]

    def test_in_a_folder_that_cannot_be_written_is_refused_as_create_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Do not use the folder's mode: the superuser may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
        for call in (RunDirectory.create, RunDirectory.check_free):
            with pytest.raises(RunError, match=r"cannot be made: Permission denied \('.*'\); choose another"):
                call(tmp_path / "runs" / "first")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["too long", "null byte"])
    def test_whose_name_no_file_can_have_is_refused(self, tmp_path: Path, name: str) -> None:
        for call in (RunDirectory.create, RunDirectory.check_free):
            with pytest.raises(RunError, match=r"cannot be made: .*run\.directory="):
                call(tmp_path / name)


def test_a_folder_made_by_another_in_the_meantime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunDirectory, "check_free", lambda _: None)
    with pytest.raises(RunError, match="exists already"):
        RunDirectory.create(tmp_path)
    with pytest.raises(RunError, match="cannot be made: File name too long"):
        RunDirectory.create(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made: File exists"):
        RunDirectory.create(tmp_path / "file" / "x")


class TestMakingARun:
    def test_shows_it_with_all_its_files_at_once(self, tmp_path: Path) -> None:
        with RunDirectory.making(tmp_path / "runs" / "first") as run:
            run.write_config(CONFIG)
            run.write_json(run.splits, {"reward": [1]})
            assert not (tmp_path / "runs" / "first").exists()
        made = RunDirectory.open(tmp_path / "runs" / "first")
        assert made.read_json(made.splits) == {"reward": [1]}
        assert {path.name for path in made.root.iterdir()} == {"config.yaml", "splits.json"}
        assert list((tmp_path / "runs").iterdir()) == [made.root]

    @pytest.mark.parametrize("error", [ValueError, RunError, KeyboardInterrupt])
    def test_leaves_nothing_where_it_fails(self, tmp_path: Path, error: type[BaseException]) -> None:
        def fail(run: RunDirectory) -> None:
            run.write_bytes(run.root / "deep" / "weights", b"half")
            raise error("no")

        with pytest.raises(error, match="no"), RunDirectory.making(tmp_path / "first") as run:
            fail(run)
        assert list(tmp_path.iterdir()) == []

    def test_refuses_a_folder_that_exists_before_anything_is_made(self, run: RunDirectory) -> None:
        run.write_text(run.plan, "mine")
        with pytest.raises(RunError, match=r"first' exists already"), RunDirectory.making(run.root):
            pytest.fail("was begun")
        assert list(run.root.parent.iterdir()) == [run.root]
        assert list(run.root.iterdir()) == [run.plan]

    def test_refuses_a_folder_that_another_made_in_the_meantime(self, tmp_path: Path) -> None:
        def slowly() -> None:
            with RunDirectory.making(tmp_path / "first") as run:
                run.write_text(run.plan, "mine")
                RunDirectory.create(tmp_path / "first").write_text(tmp_path / "first" / "plan.json", "theirs")

        with pytest.raises(RunError, match=r"first' exists already"):
            slowly()
        assert [path.name for path in tmp_path.iterdir()] == ["first"]
        assert (tmp_path / "first" / "plan.json").read_text() == "theirs"

    def test_lets_two_be_made_beside_each_other(self, tmp_path: Path) -> None:
        with RunDirectory.making(tmp_path / "first") as first, RunDirectory.making(tmp_path / "second") as second:
            assert first.root != second.root
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_a_run_is_opened_again_with_what_it_holds(run: RunDirectory) -> None:
    run.write_config(CONFIG)
    run.append_evaluation(TRIAL)
    assert [trial.as_record() for trial in RunDirectory.open(run.root).evaluations("accuracy")] == [TRIAL]


def test_opening_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'.*nowhere' does not exist"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a run directory: it has no config\.yaml"):
        RunDirectory.open(tmp_path)


def test_files_have_the_names_that_other_tools_rely_on(run: RunDirectory) -> None:
    paths = [
        run.config,
        run.plan,
        run.policy,
        run.evaluations_file,
        run.splits,
        run.sensitivity,
        run.summary,
        run.tensorboard,
        run.execution,
        run.dense_weights,
        run.report,
    ]
    assert [path.relative_to(run.root).as_posix() for path in paths] == [
        "config.yaml",
        "plan.json",
        "policy.safetensors",
        "evaluations.jsonl",
        "splits.json",
        "sensitivity.json",
        "summary.json",
        "tensorboard",
        "execution.json",
        "dense.safetensors",
        "report.html",
    ]


def test_the_execution_settings_of_an_earlier_release_s_run_are_read(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"execution\.json' cannot be read"):
        run.execution_record()
    (run.root / "form.json").write_text('{"form": {"batch": 64}, "reason": "given", "weights": "ab"}')
    assert run.execution_record() == ExecutionRecord(
        execution=ExecutionSettings(batch=64), reason="given", weights="ab"
    )
    run.write_record(run.execution, ExecutionRecord(execution=ExecutionSettings(batch=32), reason="measured"))
    assert run.execution_record().execution.batch == 32


def test_the_written_config_loads_as_the_same_settings_and_names_the_versions(run: RunDirectory) -> None:
    run.write_config(CONFIG)
    assert RunConfig.load(run.config).resolved() == CONFIG.resolved()
    text = run.config.read_text()
    assert all(f"# {name} {version}\n" in text for name, version in versions().items())
    assert {"python", "torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "prune-env"} == set(versions())


def test_text_json_and_bytes_are_written_whole(run: RunDirectory) -> None:
    run.write_text(run.report, "größer")
    run.write_json(run.summary, {"accuracy": 0.5, "plan": [1, 2]})
    run.write_bytes(run.root / "deep" / "actor.safetensors", b"\x00\x01")
    assert run.report.read_text(encoding="utf-8") == "größer"
    written = json.loads(run.summary.read_text())
    assert len(written.pop("digest")) == 32
    assert written == run.read_json(run.summary) == {"accuracy": 0.5, "plan": [1, 2]}
    assert (run.root / "deep" / "actor.safetensors").read_bytes() == b"\x00\x01"


def test_json_is_read_as_it_was_written(run: RunDirectory) -> None:
    for value in ({"accuracy": 0.5, "name": "größer"}, {}, {"a": [[], None, {"b": 1e-300}]}):
        run.write_json(run.splits, value)
        assert run.read_json(run.splits) == value


def test_json_that_was_changed_is_told_by_its_file(run: RunDirectory) -> None:
    run.write_json(run.summary, {"accuracy": 0.5})
    run.summary.write_text(run.summary.read_text().replace("0.5", "0.9"))
    with pytest.raises(RunError, match=r"summary\.json' is damaged or was changed: digest is '\w+', but its contents"):
        run.read_json(run.summary)
    run.summary.write_text("[]")
    with pytest.raises(RunError, match=r"summary\.json' is damaged: it is not a JSON object"):
        run.read_json(run.summary)


@pytest.mark.parametrize(
    "data",
    [None, b"", b'{"a": ', b"\xff", b"[" * 100_000],
    ids=["missing", "empty", "torn", "not UTF-8", "nested beyond reason"],
)
def test_json_that_cannot_be_read_is_told_by_its_file(run: RunDirectory, data: bytes | None) -> None:
    if data is not None:
        run.splits.write_bytes(data)
    with pytest.raises(RunError, match=r"splits\.json' cannot be read: "):
        run.read_json(run.splits)


def test_a_number_that_is_not_finite_is_never_written(run: RunDirectory) -> None:
    run.write_json(run.summary, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json(run.summary, {"accuracy": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append_evaluation({"accuracy": float("inf")})
    assert run.read_json(run.summary) == {"accuracy": 0.5}
    assert run.evaluations("accuracy") == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file_and_no_rest(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run.write_text(run.plan, "earlier")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(RunError, match=r"cannot write '.*plan\.json': No space left on device; .* unchanged"):
        run.write_text(run.plan, "later")
    monkeypatch.undo()
    assert run.plan.read_text() == "earlier"
    assert list(run.root.iterdir()) == [run.plan]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "plan.json", b"later")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "whole", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_run_without_evaluations_has_none(run: RunDirectory) -> None:
    assert run.evaluations("accuracy") == []


@pytest.mark.parametrize("numbers", [[1], [0, 0], [0, 2], [1, 0]], ids=["first gone", "repeated", "gone", "exchanged"])
def test_evaluations_out_of_their_places_are_told_by_the_line(run: RunDirectory, numbers: list[int]) -> None:
    for number in numbers:
        run.append_evaluation({**TRIAL, "number": number})
    with pytest.raises(
        RunError, match=r"evaluations\.jsonl', line \d is damaged: number: given \d; must be \d: lines are"
    ):
        run.evaluations("accuracy")


def test_evaluations_of_a_release_that_did_not_number_them_are_read(run: RunDirectory) -> None:
    earlier = {key: value for key, value in TRIAL.items() if key not in ("number", "latency")}
    run.evaluations_file.write_text(2 * (json.dumps(earlier) + "\n"))
    assert [trial.number for trial in run.evaluations("accuracy")] == [None, None]


def test_evaluations_that_cannot_be_written_are_told(run: RunDirectory) -> None:
    run.evaluations_file.mkdir()
    with pytest.raises(RunError, match=r"cannot write '.*evaluations\.jsonl': Is a directory"):
        run.append_evaluation({"accuracy": 0.5})


def test_a_run_that_is_being_written_is_refused_to_others_until_it_is_let_go(run: RunDirectory) -> None:
    run.write_config(CONFIG)

    def hold() -> bool:
        with RunDirectory(run.root).held():
            return True

    with run.held(), pytest.raises(RunError, match="is being written by another process"):
        hold()
    assert hold()
