"""`prune-env pretrain`: trains a network from scratch, and the other commands accept its weights."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from toy import TASK, digits_config

from prune_env.commands.pretrain import pretrain
from prune_env.common.errors import ConfigError
from prune_env.env.loading import load_splits
from prune_env.evaluation.measuring import measure
from prune_env.models import build_model
from prune_env.recover import Epoch, Trainer, Workers
from prune_env.runs.training_folder import TrainingFolder

SETTINGS = (
    "pretrain.epochs=3",
    "pretrain.layout=contiguous",
    "pretrain.dtype=float32",
    "data.reward_images=700",
    "data.calibration_images=100",
    "data.test_images=100",
    "run.device=cpu",
)

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "digits.yaml"
    path.write_text(digits_config(*SETTINGS).dump_yaml())
    return path


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingFolder:
    """A training that nothing interrupted; not to be changed."""
    folder = tmp_path_factory.mktemp("trainings") / "whole"
    pretrain(config, [f"run.directory={folder}"])
    return TrainingFolder.open(folder)


@pytest.fixture
def refused(refused: Refused) -> Refused:
    """The message of `prune-env pretrain` when it ends with code 2."""
    return partial(refused, "pretrain")


def test_the_network_learns_and_its_folder_says_how_well(finished: TrainingFolder) -> None:
    summary = finished.read_json(finished.summary)
    losses = [epoch["loss"] for epoch in summary["epochs"]]
    assert len(losses) == 3
    assert losses[-1] < 0.5 * losses[0]
    assert summary["reward_accuracy"] == max(epoch["accuracy"] for epoch in summary["epochs"]) > 0.6


def test_the_weights_are_what_model_weights_takes(finished: TrainingFolder) -> None:
    network = build_model("digits_resnet", 10, 1, str(finished.weights), {}).eval()
    summary = finished.read_json(finished.summary)
    splits = load_splits(digits_config(*SETTINGS))
    test, reward = next(splits.test_batches(100)), splits.reward()
    assert measure(network, test.batches(100), TASK).quality == summary["test_accuracy"]
    assert measure(network, reward.batches(len(reward)), TASK).quality == summary["reward_accuracy"]


@pytest.mark.slow
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    config: Path,
    finished: TrainingFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    really = Trainer.run_epoch

    def one_alone(self: Trainer, *given: Any) -> Epoch:
        if self.done == 1:
            raise KeyboardInterrupt
        return really(self, *given)

    folder = TrainingFolder(tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", one_alone)
        with pytest.raises(typer.Exit):
            pretrain(config, [f"run.directory={folder.root}"])
    assert not folder.summary.exists()
    capsys.readouterr()
    pretrain(resume=folder.root, as_json=True)
    assert json.loads(capsys.readouterr().out) == folder.read_json(folder.summary)
    assert folder.weights.read_bytes() == finished.weights.read_bytes()


def test_a_folder_that_exists_or_is_finished_is_not_changed(
    config: Path, finished: TrainingFolder, refused: Refused
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    assert "exists already" in refused(config, f"run.directory={finished.root}")
    assert "is finished: its weights are" in refused("--resume", finished.root)
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before


def test_no_epochs_are_refused_and_leave_nothing(config: Path, tmp_path: Path, refused: Refused) -> None:
    said = refused(config, "pretrain.epochs=0", f"run.directory={tmp_path / 'training'}")
    assert "pretrain.epochs: 0 given; allowed are 1 or more" in said
    assert list(tmp_path.iterdir()) == []


def test_pretrain_needs_a_config_or_a_training_to_resume(
    config: Path, finished: TrainingFolder, refused: Refused
) -> None:
    assert "neither was given" in refused()
    assert "both were given" in refused(config, "--resume", finished.root)


def test_what_is_no_training_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "does not exist" in refused("--resume", tmp_path / "nowhere")
    assert "it has no config.yaml" in refused("--resume", tmp_path)


def test_a_batch_that_cannot_be_made_is_refused_before_a_folder_is(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prune_env.runs.pretraining.AcceleratedWorkers", lambda _: _many())
    with pytest.raises(ConfigError, match=r"batch_size: 64 given, but 7 processes cannot split"):
        pretrain(config, [f"run.directory={tmp_path / 'training'}"])
    assert not (tmp_path / "training").exists()


def _many() -> Workers:
    workers = Workers(torch.device("cpu"))
    workers.processes = 7
    return workers
