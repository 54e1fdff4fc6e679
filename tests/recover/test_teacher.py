"""The teacher: its outputs for an epoch's batches are computed once, whoever asks."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from practice import CPU, batches_of, network, noise_source, settings_of
from safetensors import safe_open
from torch import Tensor, nn
from toy import TASK

import prune_env.recover.teacher as teacher_module
from prune_env.common.errors import ConfigError, RunError
from prune_env.common.tensor_records import to_tensor_file
from prune_env.data import ArraySource, Batch
from prune_env.data.source import Indices
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover import Batches, Teacher, Trainer, Workers
from prune_env.recover.teacher import Ensemble

SETTINGS = settings_of(augment="crop_flip", distillation=0.7)
EXECUTION = ExecutionSettings.for_training()


class Counting(nn.Module):
    """A network that counts its forward passes."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        self.inner = network(seed)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        scores: Tensor = self.inner(images)
        return scores


def answers(teacher: Teacher, batches: Batches, number: int = 1, execution: ExecutionSettings = EXECUTION) -> Any:
    teacher.prepare(CPU, execution)
    lesson = teacher.lesson(number, batches, execution)
    return [lesson.outputs(step, batch) for step, batch in enumerate(batches.epoch(number), start=1)]


def trained(teacher: Teacher, seed: int) -> dict[str, Tensor]:
    """The weights of a network after two epochs with the teacher."""
    trainer = Trainer(network(seed), batches_of(SETTINGS), SETTINGS, 0, Workers(CPU), EXECUTION, teacher)
    for _ in range(2):
        trainer.run_epoch()
    return trainer.result.state_dict()


def test_a_second_training_asks_nothing_and_ends_as_if_it_had(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    trained(Teacher(first, tmp_path), seed=1)
    again = trained(Teacher(second, tmp_path), seed=0)
    assert (first.passes, second.passes) == (10, 0)
    alone = trained(Teacher(Counting()), seed=0)
    assert all(torch.equal(again[name], alone[name]) for name in alone)


def test_what_is_kept_is_the_outputs_as_half_floats(tmp_path: Path) -> None:
    model, batches = network(5), batches_of(SETTINGS)
    found = answers(Teacher(model, tmp_path), batches)
    for given, batch in zip(found, batches.epoch(1), strict=True):
        with torch.no_grad():
            assert torch.equal(given, model.eval()(batch.images).half().float())
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 2 * 40 * found[0].shape[1] + 200


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"number": 2},
        {"model": 6},
        {"count": 39},
        {"augment": "none"},
        {"batch_size": 4},
        {"dtype": "bfloat16"},
    ],
)
def test_other_questions_are_asked_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"seed": 0, "number": 1, "model": 5, "count": 40, "augment": "crop_flip", "batch_size": 8}
    passes = []
    for given in (usual, {**usual, **other}):
        model = Counting(given["model"])
        settings = settings_of(augment=given["augment"], batch_size=given["batch_size"])
        execution = ExecutionSettings.for_training(dtype=given.get("dtype", "float32"))
        batches = batches_of(settings, given["count"], given["seed"])
        answers(Teacher(model, tmp_path), batches, given["number"], execution)
        passes.append(model.passes)
    assert passes[1] > 0


def test_a_training_that_was_interrupted_within_an_epoch_leaves_no_answers(tmp_path: Path) -> None:
    teacher, batches = Teacher(network(5), tmp_path), batches_of(SETTINGS)
    teacher.prepare(CPU, EXECUTION)
    lesson = teacher.lesson(1, batches, EXECUTION)
    lesson.outputs(1, next(batches.epoch(1)))
    assert not list(tmp_path.iterdir())


def test_a_large_epoch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(SETTINGS)
    classes = answers(Teacher(network(5)), batches)[0].shape[1]
    for most, kept in ((2 * 40 * classes - 1, 0), (2 * 40 * classes, 1)):
        monkeypatch.setattr(teacher_module, "LARGEST_EPOCH", most)
        answers(Teacher(network(5), tmp_path), batches)
        assert len(list(tmp_path.iterdir())) == kept


class Varying(ArraySource):
    """A data set that shifts its images anew each time that it is read."""

    varies = True

    def stream(self, batches: Sequence[Indices]) -> Iterator[Tensor]:
        for indices in batches:
            images = self.load("train", indices)
            yield images + torch.rand(len(images), 1, 1, 1)


@pytest.mark.parametrize("given", [noise_source(40), Varying(**vars(noise_source(40)))], ids=["fixed", "varying"])
def test_answers_for_images_that_vary_are_not_kept(tmp_path: Path, given: ArraySource) -> None:
    answers(Teacher(network(5), tmp_path), batches_of(SETTINGS, source=given))
    assert len(list(tmp_path.iterdir())) == (0 if isinstance(given, Varying) else 1)


class Several(type(TASK)):  # type: ignore[misc]
    """A task whose outputs are no tensor."""

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        return {"scores": super().forward(model, batch)}


def test_outputs_that_are_no_tensor_are_given_as_they_are_and_not_kept(tmp_path: Path) -> None:
    model = Counting()
    batches = batches_of(SETTINGS, task=Several())
    for passes in (5, 10):
        found = answers(Teacher(model, tmp_path), batches)
        assert model.passes == passes
        assert not np.array_equal(found[0]["scores"], found[0]["scores"].half().float())
    assert not list(tmp_path.iterdir())


def test_several_networks_teach_their_mean_output() -> None:
    networks, batch = [network(seed).eval() for seed in (5, 6)], next(batches_of(SETTINGS).epoch(1))
    with torch.no_grad():
        found = TASK.forward(Ensemble(networks).eval(), batch)
        assert torch.allclose(found, (networks[0](batch.images) + networks[1](batch.images)) / 2)
    assert len({Teacher(Ensemble(some)).digest for some in (networks, networks[:1], networks[::-1])}) == 3


def test_outputs_that_have_no_mean_are_refused_as_teachers() -> None:
    class Listed(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images]

    with pytest.raises(ConfigError, match=r"finetune\.teachers: given, but .* not one tensor"):
        Ensemble([network(), Listed()])(next(batches_of(SETTINGS).epoch(1)).images)


def changed(file: Path, change: Callable[[Tensor], Tensor], *, sealed: bool) -> None:
    """Writes other answers into a file, with a new digest or with the old header."""
    with safe_open(file, "pt") as old:
        header, known = old.metadata(), old.get_tensor("answers")
    new = {"answers": change(known).contiguous()}
    file.write_bytes(to_tensor_file({}, new) if sealed else safetensors.torch.save(new, header))


@pytest.mark.parametrize(
    ("change", "sealed", "told"),
    [
        (torch.neg, False, "is damaged or was changed: digest"),
        (lambda known: known[:1], True, "holds answers for other batches than the"),
        (lambda known: known[:, :1], True, "holds answers for 1 images a batch"),
        (lambda known: known.sum(), True, "holds answers for other batches than the"),
        (Tensor.float, True, "holds answers for other batches than the"),
    ],
    ids=["negated", "fewer batches", "fewer images", "one number", "another type"],
)
def test_changed_answers_are_refused(
    change: Callable[[Tensor], Tensor], sealed: bool, told: str, tmp_path: Path
) -> None:
    answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))
    (file,) = tmp_path.iterdir()
    changed(file, change, sealed=sealed)
    with pytest.raises(RunError, match=rf"{file.name}' {told}.*Remove it; the teacher computes its outputs again"):
        answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))


def test_answers_without_a_record_are_refused(tmp_path: Path) -> None:
    answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))
    (file,) = tmp_path.iterdir()
    file.write_bytes(safetensors.torch.save(safetensors.torch.load_file(file)))
    with pytest.raises(RunError, match="it has no record"):
        answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))


def test_a_damaged_file_is_told_by_its_name(tmp_path: Path) -> None:
    answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(RunError, match=rf"{file.name}' cannot be read"):
        answers(Teacher(network(5), tmp_path), batches_of(SETTINGS))
