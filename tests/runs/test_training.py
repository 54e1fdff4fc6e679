"""A training into a folder: the kept weights, resuming, and refusals."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from toy import TASK, ToyResNet, digits_config, digits_splits

from prune_env.common.errors import ConfigError, EvaluationError, RunError, UserError
from prune_env.config.training import FinetuneSection
from prune_env.data import Splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.models import load_weights
from prune_env.recover import Epoch, Workers, training_loss
from prune_env.recover import trainer as trainer_module
from prune_env.runs.finetuning import place_of
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training import Validate, train_into, training_images
from prune_env.runs.training_folder import TrainingFolder, resume_training, start_training

WORKERS = Workers(torch.device("cpu"))
SETTINGS = FinetuneSection(epochs=4, batch_size=16, layout="contiguous", dtype="float32", average=0.1)


def network(seed: int = 0) -> ToyResNet:
    torch.manual_seed(seed)
    return ToyResNet(4, colours=1, classes=10).eval()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """A few of the digits."""
    whole = digits_splits()
    return replace(whole, train_indices=whole.train_indices[:48], calibration_indices=whole.calibration_indices[:16])


@pytest.fixture
def folder(tmp_path: Path, splits: Splits) -> TrainingFolder:
    return start_training(tmp_path / "training", digits_config(), splits, network(), WORKERS)


def run(folder: TrainingFolder, splits: Splits, validate: Validate, **given: Any) -> tuple[nn.Module, list[Epoch]]:
    """Starts or resumes a training; gives the network and its epochs."""
    settings = SETTINGS.model_copy(update=given)
    model = network()
    images = training_images(splits, settings, 0, WORKERS, TASK)
    epochs, _ = train_into(folder, model, images, settings, 0, WORKERS, validate)
    return model, epochs


class Told:
    """Gives the next of the given accuracies for each epoch, and notes the measured weights."""

    def __init__(self, *accuracies: float) -> None:
        self._accuracies: Iterator[float] = iter(accuracies)
        self.asked: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module) -> float:
        self.asked.append(weights_of(model))
        return next(self._accuracies)


@pytest.mark.parametrize("average", [0.0, 0.1])
def test_the_last_epoch_is_kept_whatever_the_qualities(folder: TrainingFolder, splits: Splits, average: float) -> None:
    told = Told(0.2, 0.9, 0.5, 0.1)
    _, epochs = run(folder, splits, told, average=average)
    assert [epoch.quality for epoch in epochs] == [0.2, 0.9, 0.5, 0.1]
    kept = network(seed=5)
    load_weights(kept, folder.weights)
    assert equal(weights_of(kept), told.asked[-1])


@pytest.mark.parametrize("average", [0.0, 0.1])
def test_networks_are_measured_in_eval_mode(folder: TrainingFolder, splits: Splits, average: float) -> None:
    modes: list[bool] = []

    def validate(model: nn.Module) -> float:
        modes.append(any(module.training for module in model.modules()))
        return 0.5

    run(folder, splits, validate, average=average)
    assert modes == [False] * 4


def test_all_but_the_reward_and_the_test_set_is_learned_from(
    folder: TrainingFolder, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[int]] = []

    class Noting(trainer_module.Batches):
        def __init__(self, source: Any, indices: Any, *others: Any, **named: Any) -> None:
            given.append(indices.tolist())
            super().__init__(source, indices, *others, **named)

    monkeypatch.setattr("prune_env.runs.training.Batches", Noting)
    run(folder, splits, Told(*[0.5] * 4))
    assert given == [sorted([*splits.train_indices.tolist(), *splits.calibration_indices.tolist()])]


def interrupt_after(count: int) -> Validate:
    """Stops, as if interrupted by the user, in the epoch after the given number."""
    numbers = iter(range(count))

    def validate(_: nn.Module) -> float:
        if next(numbers, None) is None:
            raise KeyboardInterrupt
        return 0.5

    return validate


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("average", [0.0, 0.1])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(
    folder: TrainingFolder, splits: Splits, tmp_path: Path, after: int, average: float
) -> None:
    whole = start_training(tmp_path / "whole", digits_config(), splits, network(), WORKERS)
    _, expected = run(whole, splits, Told(*[0.5] * 4), average=average)
    with pytest.raises(KeyboardInterrupt):
        run(folder, splits, interrupt_after(after), average=average)
    _, epochs = run(resume_training(folder.root), splits, Told(*[0.5] * (4 - after)), average=average)
    assert folder.weights.read_bytes() == whole.weights.read_bytes()
    assert [(epoch.number, epoch.loss) for epoch in epochs] == [(epoch.number, epoch.loss) for epoch in expected]


def test_the_execution_settings_are_measured_once_and_kept(
    folder: TrainingFolder, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[None] = []

    def fastest(*_: object) -> ExecutionSettings:
        measured.append(None)
        return ExecutionSettings.for_training("contiguous", "bfloat16")

    monkeypatch.setattr("prune_env.runs.training.fastest_training", fastest)
    with pytest.raises(KeyboardInterrupt):
        run(folder, splits, interrupt_after(2), layout=None)
    run(folder, splits, Told(0.5, 0.5), layout=None)
    assert len(measured) == 1


def scalars(folder: TrainingFolder) -> dict[str, list[int]]:
    log = EventAccumulator(str(folder.tensorboard))
    log.Reload()
    return {tag: [event.step for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


@pytest.mark.parametrize("before", [True, False])
def test_every_epoch_is_in_tensorboard_once_whenever_the_process_ends(
    folder: TrainingFolder, splits: Splits, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    written = TrainingFolder.write_bytes

    def kill_at_the_second(self: TrainingFolder, path: Path, data: bytes) -> None:
        second = path == self.checkpoint and len(done) == 2
        if not (second and before):
            written(self, path, data)
        if second:
            raise KeyboardInterrupt

    done: list[None] = []

    def validate(_: nn.Module) -> float:
        done.append(None)
        return 0.5

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, "write_bytes", kill_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(folder, splits, validate)
    # TensorBoard orders logs by the second in their names, so give the earlier log an earlier second.
    for log in folder.tensorboard.iterdir():
        parts = log.name.split(".")
        log.rename(log.with_name(".".join([*parts[:3], str(int(parts[3]) - 10), *parts[4:]])))
    run(folder, splits, validate)
    assert scalars(folder)["train/loss"] == [1, 2, 3, 4]


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Makes the writing of a file fail at the given number of writes."""
    really = os.fsync
    written: list[None] = []

    def fsync(file: int) -> None:
        if f"/.{name}." in str(Path(f"/proc/self/fd/{file}").readlink()):
            written.append(None)
            if len(written) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(file)

    monkeypatch.setattr("prune_env.common.files.os.fsync", fsync)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "weights.safetensors"])
def test_a_full_disk_leaves_the_earlier_checkpoint(
    folder: TrainingFolder, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = start_training(tmp_path / "whole", digits_config(), splits, network(), WORKERS)
    run(whole, splits, Told(*[0.5] * 4))
    with monkeypatch.context() as patch:
        fill_the_disk(patch, name, 2)
        with pytest.raises(UserError, match=rf"{name}.*No space left on device"):
            run(folder, splits, Told(*[0.5] * 4))
    assert not list(folder.root.glob(".*"))
    told = Told(*[0.5] * 4)
    run(folder, splits, told)
    assert len(told.asked) == 3
    assert folder.weights.read_bytes() == whole.weights.read_bytes()


def not_finite_from(step: int) -> Callable[..., Tensor]:
    """A training loss that is NaN from the given step on."""
    steps = iter(range(1, 10_000))
    return lambda *given: training_loss(*given) * (float("nan") if next(steps) >= step else 1.0)


def test_a_training_that_diverges_names_what_stays(
    folder: TrainingFolder, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = rf"Lower learning_rate \(given 0\.05\)\. The checkpoint after epoch 2 stays.*'{folder.weights}'"
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "training_loss", not_finite_from(11))
        with pytest.raises(EvaluationError, match=words):
            run(folder, splits, Told(*[0.5] * 4))
    load_weights(network(), folder.weights)
    assert [epoch.number for epoch in run(folder, splits, Told(0.5, 0.5))[1]] == [1, 2, 3, 4]


def test_a_training_that_diverges_at_once_leaves_nothing(folder: TrainingFolder, splits: Splits) -> None:
    with pytest.raises(EvaluationError, match=r"Lower learning_rate \(given 1e\+20\)\. There is no checkpoint yet"):
        run(folder, splits, Told(0.5), learning_rate=1e20)
    assert not folder.checkpoint.exists()
    assert not folder.weights.exists()


def test_weights_that_the_last_step_of_an_epoch_has_ruined_are_not_kept(
    folder: TrainingFolder, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The loss is finite, but the gradients are not.
    monkeypatch.setattr(trainer_module, "training_loss", lambda *given: 1e37 * training_loss(*given))
    with pytest.raises(EvaluationError, match="Lower learning_rate"):
        run(folder, splits, Told(0.1), learning_rate=1e6, warmup=0.0, epochs=1, batch_size=64)
    assert not folder.weights.exists()


@pytest.mark.parametrize(
    ("given", "named"), [({"learning_rate": 0.01}, "settings"), ({"epochs": 5}, "settings"), ({}, "weights")]
)
def test_a_training_is_not_gone_on_with_otherwise(
    folder: TrainingFolder, splits: Splits, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, splits, interrupt_after(1))
    before = folder.checkpoint.read_bytes()
    settings = SETTINGS.model_copy(update=given)
    images = training_images(splits, settings, 0, WORKERS, TASK)
    with pytest.raises(RunError, match=f"to a training with other {named}"):
        train_into(folder, network(seed=0 if given else 1), images, settings, 0, WORKERS, Told(0.5))
    assert folder.checkpoint.read_bytes() == before


def test_two_processes_do_not_train_into_one_folder(folder: TrainingFolder, splits: Splits) -> None:
    with folder.held(), pytest.raises(RunError, match="is being written by another process"):
        run(folder, splits, Told(0.5))
    assert not folder.checkpoint.exists()


def test_no_images_to_learn_from_are_told_in_words(folder: TrainingFolder, splits: Splits) -> None:
    none = replace(splits, train_indices=splits.train_indices[:0], calibration_indices=splits.train_indices[:0])
    with pytest.raises(ConfigError, match="0 images"):
        run(folder, none, Told(0.5))


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", "", "x" * 300 + "/y"])
def test_a_fine_tuning_never_leaves_its_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--name: .* given; allowed is the name of a folder within the run"):
        place_of(RunDirectory(tmp_path / "run"), name)
    assert place_of(RunDirectory(tmp_path / "run")) == tmp_path / "run" / "finetune"
