"""`prune-env finetune`: the pruned network regains accuracy, and a kill costs at most one epoch."""

import contextlib
import io
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from pruned import pruned_config, pruned_run
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from toy import TASK, WatchedSource

from prune_env import PruningPlan, RunConfig
from prune_env.commands.finetune import finetune
from prune_env.data import Splits
from prune_env.env.loading import load_splits
from prune_env.evaluation.measuring import measure
from prune_env.models import build_model, load_weights
from prune_env.recover import Epoch, Teacher, Trainer
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training import train_into, training_images
from prune_env.runs.training_folder import TrainingFolder

pytestmark = pytest.mark.slow

CHILDREN = multiprocessing.get_context("forkserver")
"""Child processes that are forked after torch is imported, so that they start in milliseconds."""
CHILDREN.set_forkserver_preload(
    [
        "prune_env.commands.train",
        "prune_env.commands.finetune",
        "accelerate",
        "sklearn.datasets",
        "matplotlib.backends.backend_agg",
    ]
)

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished search; each test fine-tunes into a folder of its own."""
    return pruned_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def printed(run: RunDirectory) -> dict[str, Any]:
    """The JSON output of a fine-tuning that nothing interrupted."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        finetune(run.root, as_json=True)
    record: dict[str, Any] = json.loads(out.getvalue())
    return record


@pytest.fixture(scope="module")
def finished(run: RunDirectory, printed: dict[str, Any]) -> TrainingFolder:  # noqa: ARG001
    """The folder of the finished fine-tuning; not to be changed."""
    return TrainingFolder.open(run.root / "finetune")


@pytest.fixture(scope="module")
def stopped(run: RunDirectory) -> TrainingFolder:
    """A fine-tuning that was interrupted in its second epoch; not to be changed."""
    really = Trainer.run_epoch

    def one_alone(self: Trainer, *given: Any) -> Epoch:
        if self.done == 1:
            raise KeyboardInterrupt
        return really(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", one_alone)
        with pytest.raises(typer.Exit):
            finetune(run.root, name="stopped")
    return TrainingFolder.open(run.root / "stopped")


@pytest.fixture
def interrupted(stopped: TrainingFolder, tmp_path: Path) -> TrainingFolder:
    """A copy of the interrupted fine-tuning, in the same run."""
    return TrainingFolder(Path(shutil.copytree(stopped.root, stopped.root.with_name(tmp_path.name))))


@pytest.fixture
def refused(refused: Refused) -> Refused:
    """The message of `prune-env finetune` when it ends with code 2."""
    return partial(refused, "finetune")


def contents(folder: RunDirectory) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}


def curves_of(folder: TrainingFolder) -> dict[str, list[tuple[int, float]]]:
    log = EventAccumulator(str(folder.tensorboard))
    log.Reload()
    return {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def wait_for_another_second(folder: TrainingFolder) -> None:
    """TensorBoard orders the logs of a run by the second in their names; no user restarts torch within one."""
    seconds = [int(log.name.split(".")[3]) for log in folder.tensorboard.glob("events.*")]
    while seconds and int(time.time()) <= max(seconds):
        time.sleep(0.01)


def state_of(folder: TrainingFolder) -> dict[str, Tensor]:
    """The checkpoint, without the seconds in its header."""
    return load_file(folder.checkpoint)


def same_result(one: TrainingFolder, other: TrainingFolder) -> bool:
    states = state_of(one), state_of(other)
    assert states[0].keys() == states[1].keys()
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return same and one.weights.read_bytes() == other.weights.read_bytes()


def test_finetune_prints_one_object_that_the_folder_keeps(printed: dict[str, Any], finished: TrainingFolder) -> None:
    assert printed == finished.read_json(finished.summary)
    assert [epoch["number"] for epoch in printed["epochs"]] == [1, 2, 3]
    assert printed["epochs"][-1]["loss"] < printed["epochs"][0]["loss"]
    assert not list(finished.root.glob(".*"))


def test_fine_tuning_wins_back_what_the_cut_took(printed: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in printed["rows"]}
    assert list(rows) == ["dense", "recalibrated", "fine-tuned"]
    for key in ("reward_accuracy", "test_accuracy"):
        assert rows["fine-tuned"][key] > rows["recalibrated"][key] + 0.2
        assert rows["dense"][key] > 0.8
    assert rows["fine-tuned"]["macs"] == rows["recalibrated"]["macs"] < 0.5 * rows["dense"]["macs"]
    assert rows["fine-tuned"]["params"] < rows["dense"]["params"]


def test_the_weights_are_those_of_the_last_epoch(printed: dict[str, Any], finished: TrainingFolder) -> None:
    assert printed["rows"][2]["reward_accuracy"] == printed["epochs"][-1]["accuracy"]
    assert (printed["refused"], printed["weights"]) == (None, str(finished.weights))


def test_the_folder_has_which_test_images_each_network_gets_right(
    printed: dict[str, Any], finished: TrainingFolder
) -> None:
    right = load_file(finished.right)
    assert set(right) == {row["name"] for row in printed["rows"]}
    for row in printed["rows"]:
        assert right[row["name"]].float().mean().item() == pytest.approx(row["test_accuracy"], abs=1e-6)


@pytest.mark.parametrize("unseen", [True, False])
def test_a_start_that_is_better_on_images_that_nobody_was_trained_on_is_kept(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], unseen: bool
) -> None:
    whole = RunDirectory(Path(shutil.copytree(run.root, tmp_path / "run", ignore=shutil.ignore_patterns("*tune*"))))
    if not unseen:
        whole.splits.unlink()
    uncut = PruningPlan.load(run.plan)
    units = [unit.model_copy(update={"kept": list(range(unit.channels))}) for unit in uncut.units]
    whole.write_bytes(whole.plan, uncut.model_copy(update={"units": units}).to_json())
    finetune(whole.root, ["finetune.epochs=1", "finetune.learning_rate=1.0", "finetune.average=0"])
    folder = TrainingFolder(whole.root / "finetune")
    summary, said = folder.read_json(folder.summary), capsys.readouterr()
    last = summary["epochs"][-1]["accuracy"]
    before = summary["rows"][1]["reward_accuracy"]
    assert (summary["unseen_images"], last < before) == (unseen, True)
    start, weights = load_file(folder.start), load_file(folder.weights)
    assert all(torch.equal(weights[name], start[name]) for name in start) == unseen
    assert summary["rows"][2]["reward_accuracy"] == (before if unseen else last)
    assert ("The start is kept" in said.out, "not compared with its start" in said.err) == (unseen, not unseen)
    assert (summary["refused"] or {}).get("reward_accuracy") == (last if unseen else None)


def test_without_an_average_the_accuracy_of_an_epoch_is_that_of_its_weights(run: RunDirectory, tmp_path: Path) -> None:
    finetune(run.root, ["finetune.average=0", "finetune.epochs=1"], name=tmp_path.name)
    folder = TrainingFolder(run.root / tmp_path.name)
    record = folder.read_json(folder.summary)
    assert record["rows"][2]["reward_accuracy"] == record["epochs"][0]["accuracy"]


def test_the_plan_and_the_weights_make_the_network(
    run: RunDirectory, printed: dict[str, Any], finished: TrainingFolder
) -> None:
    network = PruningPlan.load(run.plan).apply(build_model("digits_resnet", 10, 1))
    load_weights(network, finished.weights)
    test = next(load_splits(pruned_config()).test_batches(100))
    measured = measure(network.eval(), test.batches(100), TASK)
    assert measured.quality == printed["rows"][2]["test_accuracy"]
    assert measured.loss == pytest.approx(printed["rows"][2]["test_loss"], rel=1e-4)


def test_a_folder_that_exists_is_not_written_over(
    run: RunDirectory, finished: TrainingFolder, refused: Refused
) -> None:
    before = contents(finished)
    assert "finetune' exists already, and nothing is written over" in refused(run.root)
    assert "plan.json' exists already" in refused(run.root, "--name", "plan.json")
    assert contents(finished) == before


def test_another_name_is_another_folder_and_a_table_is_printed(
    run: RunDirectory, finished: TrainingFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    finetune(run.root, ["finetune.epochs=1", "finetune.distillation=0"], name=tmp_path.name)
    said = capsys.readouterr()
    for words in ("dense", "recalibrated", "fine-tuned", "weights", "TensorBoard", "1 epoch, "):
        assert words in said.out
    assert "fine-tuned" not in said.err
    other = TrainingFolder.open(run.root / tmp_path.name)
    assert RunConfig.load(other.config).finetune.epochs == 1
    assert other.weights.read_bytes() != finished.weights.read_bytes()
    assert contents(finished) == before


class LookedError(Exception):
    """Ends a command where the training would begin."""


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_dense_network_is_the_teacher_where_one_is_asked_for(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    taught: list[object] = []

    def look(*given: object, **_: object) -> None:
        taught.append(given[-1])
        raise LookedError

    monkeypatch.setattr("prune_env.runs.finetuning.train_into", look)
    with pytest.raises(LookedError):
        finetune(run.root, [f"finetune.distillation={weight}"], name=tmp_path.name)
    dense = build_model("digits_resnet", 10, 1)
    load_weights(dense, run.dense_weights)
    if not weight:
        assert taught == [None]
        return
    assert isinstance(taught[0], Teacher)
    state = taught[0].model.state_dict()
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in state.items())


def test_a_fine_tuned_network_teaches_beside_the_dense_one(
    run: RunDirectory, finished: TrainingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    taught: list[Any] = []

    def look(*given: object, **_: object) -> None:
        taught.append(given[-1])
        raise LookedError

    monkeypatch.setattr("prune_env.runs.finetuning.train_into", look)
    with pytest.raises(LookedError):
        finetune(run.root, [f"finetune.teachers=[{finished.root}]"], name=tmp_path.name)
    dense, tuned = taught[0].model.networks
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in load_file(run.dense_weights).items())
    assert all(torch.equal(tensor, tuned.state_dict()[name]) for name, tensor in load_file(finished.weights).items())
    said = refused(run.root, f"finetune.teachers=[{run.root}]", "--name", f"{tmp_path.name}-2")
    assert "holds no finished fine-tuning" in said


def test_no_image_of_the_reward_or_the_test_set_is_trained_on(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_splits(pruned_config())
    source = WatchedSource(whole.source)
    during: dict[str, list[int]] = {"train": [], "test": []}

    def watched(_: RunConfig) -> Splits:
        return replace(whole, source=source)

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        """Notes the images that are loaded during the training; other images are loaded before and after it."""

        def call(*given: Any, **named: Any) -> Any:
            source.loaded = {"train": [], "test": []}
            found = function(*given, **named)
            for split, loaded in source.loaded.items():
                during[split] += loaded
            return found

        return call

    def train(*given: Any, **named: Any) -> None:
        noted(train_into)(*given, **named)
        raise LookedError

    monkeypatch.setattr("prune_env.runs.finetuning.load_splits", watched)
    monkeypatch.setattr("prune_env.runs.finetuning.training_images", noted(training_images))
    monkeypatch.setattr("prune_env.runs.finetuning.train_into", train)
    with pytest.raises(LookedError):
        finetune(run.root, ["finetune.epochs=1"], name=tmp_path.name)
    assert during["test"] == []
    assert set(during["train"]) == {*whole.train_indices.tolist(), *whole.calibration_indices.tolist()}
    assert not set(during["train"]) & set(whole.reward_indices.tolist())


@pytest.mark.slow
def test_a_fine_tuning_that_is_killed_ends_as_one_that_was_not(
    run: RunDirectory, finished: TrainingFolder, tmp_path: Path
) -> None:
    folder = TrainingFolder(run.root / tmp_path.name)
    process = CHILDREN.Process(target=finetune, args=(run.root,), kwargs={"name": tmp_path.name}, daemon=True)
    process.start()
    while process.is_alive() and not folder.checkpoint.exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not folder.summary.exists()
    wait_for_another_second(folder)
    finetune(run.root, name=tmp_path.name, resume=True)
    assert same_result(folder, finished)
    summaries = [one.read_json(one.summary) for one in (folder, finished)]
    for summary in summaries:
        assert all(row.pop("latency_ms")["median"] > 0 for row in summary["rows"])
    for key in ("rows", "refused", "model"):
        assert summaries[0][key] == summaries[1][key]


@pytest.mark.slow
def test_every_epoch_is_in_tensorboard_once_after_a_resume(
    run: RunDirectory, finished: TrainingFolder, interrupted: TrainingFolder
) -> None:
    wait_for_another_second(interrupted)
    finetune(run.root, name=interrupted.root.name, resume=True)
    assert same_result(interrupted, finished)
    curves, expected = curves_of(interrupted), curves_of(finished)
    assert curves.keys() == {"train/loss", "train/learning_rate", "eval/accuracy", "time/waiting", "time/seconds"}
    for name in ("train/loss", "train/learning_rate", "eval/accuracy"):
        assert [step for step, _ in curves[name]] == [1, 2, 3]
        assert curves[name] == expected[name]


def test_a_fine_tuning_is_resumed_with_its_own_settings(
    run: RunDirectory, interrupted: TrainingFolder, refused: Refused
) -> None:
    before = contents(interrupted)
    said = refused(run.root, "finetune.epochs=5", "--resume", "--name", interrupted.root.name)
    assert "give --resume or overrides, not both" in said
    assert contents(interrupted) == before


def test_a_finished_fine_tuning_is_said_to_be_finished(
    run: RunDirectory, finished: TrainingFolder, refused: Refused
) -> None:
    before = contents(finished)
    said = refused(run.root, "--resume")
    assert "is finished: its weights are" in said
    assert contents(finished) == before


def test_a_fine_tuning_that_was_never_started_cannot_be_resumed(run: RunDirectory, refused: Refused) -> None:
    assert "nowhere' does not exist" in refused(run.root, "--resume", "--name", "nowhere")


def test_other_images_are_refused(run: RunDirectory, interrupted: TrainingFolder, refused: Refused) -> None:
    record = interrupted.read_json(interrupted.splits)
    interrupted.write_json(interrupted.splits, record | {"reward": record["reward"][::-1]})
    before = contents(interrupted)
    said = refused(run.root, "--resume", "--name", interrupted.root.name)
    assert "differs from the current split" in said
    assert contents(interrupted) == before


def test_a_damaged_checkpoint_is_refused(run: RunDirectory, interrupted: TrainingFolder, refused: Refused) -> None:
    data = interrupted.checkpoint.read_bytes()
    interrupted.checkpoint.write_bytes(data[: len(data) // 2])
    before = contents(interrupted)
    said = refused(run.root, "--resume", "--name", interrupted.root.name)
    assert "checkpoint.safetensors' cannot be read" in said
    assert "Move its folder away" in said
    assert contents(interrupted) == before


def test_a_run_without_a_plan_is_refused(tmp_path: Path, refused: Refused) -> None:
    RunDirectory.create(tmp_path / "run").write_config(pruned_config())
    said = refused(tmp_path / "run")
    assert "is not finished: `prune-env train --resume" in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert "does not exist" in refused(tmp_path / "nowhere")


def test_a_learning_rate_that_is_too_high_is_told_in_words(run: RunDirectory, tmp_path: Path, refused: Refused) -> None:
    said = refused(run.root, "finetune.learning_rate=1e20", "--name", tmp_path.name)
    assert "Lower learning_rate (given 1e+20). There is no checkpoint yet." in said


def test_another_run_directory_is_refused_and_not_passed_over(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="a training lives within its run; --name"):
        finetune(run.root, [f"run.directory={tmp_path / 'elsewhere'}"])
    assert not (tmp_path / "elsewhere").exists()
