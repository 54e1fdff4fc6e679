"""Tasks by name, and a user's own task whose targets are boxes: only the task knows what targets are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, COLOURS, SIDE, ToyResNet

from prune_env import RunConfig
from prune_env.common.errors import ConfigError
from prune_env.config.task import TASKS
from prune_env.criteria import ScoringContext, score_channels
from prune_env.data import Batch, ImageSet, ImageSource, Indices, Split
from prune_env.env.builders import build_problem
from prune_env.env.loading import check_names, load_model, load_splits
from prune_env.recover import train_network
from prune_env.tasks import Metric, Task, make_task, quality_of, register_task
from prune_env.tasks.classification import Classification
from prune_env.testing import check_task

BOXES = 4


@dataclass(frozen=True)
class BoxSource:
    """Noise with one to three boxes an image, [n, 4], whose stratum is their number."""

    name: str = "boxes"
    classes: int = CLASSES
    channels: int = COLOURS
    size: tuple[int, int] = (SIDE, SIDE)
    mean: tuple[float, ...] = (0.0,) * COLOURS
    std: tuple[float, ...] = (1.0,) * COLOURS
    augment: str = "none"

    def targets(self, split: Split) -> list[Mapping[str, Tensor]]:
        generator = torch.Generator().manual_seed(len(split))
        return [{"boxes": torch.rand(1 + number % 3, BOXES, generator=generator)} for number in range(90)]

    def load(self, split: Split, indices: Indices) -> Tensor:
        generator = torch.Generator().manual_seed(len(split))
        return torch.randn(90, COLOURS, SIDE, SIDE, generator=generator)[torch.tensor(indices)]


class Nearness:
    """1 / (1 + mean distance from the mean box): a quality that is no share of the images."""

    name, title, format, counts = "nearness", "near", ".3f", False

    def reset(self) -> None:
        self.far: list[float] = []

    def update(self, outputs: Any, batch: Batch) -> None:
        self.far += Boxes().loss(outputs, batch).tolist()

    def compute(self) -> float:
        return 1.0 / (1.0 + float(np.mean(self.far)))


class Boxes:
    """Finds the mean box of each image; in training mode the outputs are a dict of losses."""

    name, draws = "boxes", 1

    def load(self, settings: Any) -> ImageSource:  # noqa: ARG002
        return BoxSource()

    def stratum(self, target: Mapping[str, Tensor]) -> int:
        return len(target["boxes"])

    def build_model(self, settings: Any, source: ImageSource, image: Tensor) -> nn.Module:  # noqa: ARG002
        return ToyResNet(4, classes=BOXES)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        outputs = model(batch.images)
        return {"boxes": self.loss(outputs, batch)} if model.training else outputs

    def check(self, outputs: Any, batch: Batch) -> None:
        assert len(outputs) == len(batch.targets)

    def loss(self, outputs: Any, batch: Batch, reduction: str = "none", smoothing: float = 0.0) -> Tensor:  # noqa: ARG002
        if isinstance(outputs, dict):
            each = outputs["boxes"]
        else:
            means = torch.stack([target["boxes"].mean(0) for target in batch.targets])
            each = (outputs.float() - means).square().sum(1)
        return each if reduction == "none" else each.sum() / (len(each) if reduction == "mean" else 1)

    def sampled(self, outputs: Any, batch: Batch, generator: torch.Generator) -> Batch:  # noqa: ARG002
        raise ConfigError("criterion.name: boxes cannot be drawn from a network's prediction.")

    def distillation(self, student: Any, teacher: Any, batch: Batch, temperature: float) -> Tensor:  # noqa: ARG002
        raise ConfigError("finetune.distillation: boxes have no teacher.")

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:  # noqa: ARG002
        assert draws.shape == (len(batch.images), 1)
        return batch

    def metrics(self) -> tuple[Metric, ...]:
        return (Nearness(),)


@pytest.fixture
def boxes() -> Iterator[None]:
    """Registers the task of boxes during a test."""
    with TASKS.restored():
        register_task(Boxes)
        yield


def config_of(*overrides: str, **task: str) -> RunConfig:
    document = {
        "task": task,
        "model": {"name": "toy"},
        "data": {"name": "boxes", "reward_images": 30, "calibration_images": 24, "test_images": 9},
        "execution": {"layout": "contiguous", "dtype": "float32", "folded": True, "batch": 8, "threads": 1},
        "run": {"device": "cpu"},
        "sensitivity": {"enabled": False},
        "criterion": {"name": "taylor"},
    }
    return RunConfig.from_mapping(document, overrides)


def box_context() -> ScoringContext:
    """The scoring context of a network for boxes."""
    config = config_of("criterion.images=3", name="boxes")
    splits = load_splits(config)
    return build_problem(config, splits, load_model(config, splits)).context


def test_classification_is_the_default() -> None:
    config = RunConfig.from_mapping({"model": {"name": "x"}, "data": {"name": "digits"}})
    assert config.task.name == "classification"
    assert isinstance(make_task(config.task), Classification)
    assert isinstance(make_task(), Classification)
    assert RunConfig.from_mapping(config.resolved()) == config


def test_a_task_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"task\.name: there is no task 'clasification'; did you mean 'class"):
        config_of(name="clasification")


def test_a_task_of_the_user_s_own_is_named_by_its_module() -> None:
    assert isinstance(make_task(config_of(name=f"{__name__}:Boxes").task), Boxes)


def test_a_task_of_the_user_s_own_keeps_its_promises() -> None:
    source = BoxSource()
    images = ImageSet(source.load("train", np.arange(5)), source.targets("train")[:5])
    check_task(Boxes, ToyResNet(4, classes=BOXES), next(images.batches(5)))


@pytest.mark.usefixtures("boxes")
def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match="task named 'boxes' is registered already"):
        register_task(Boxes)


@pytest.mark.parametrize("task", [Classification(), Boxes()], ids=lambda task: task.name)
def test_the_quality_is_the_first_metric(task: Task) -> None:
    first, *others = task.metrics()
    assert quality_of(task).name == first.name
    assert len({metric.name for metric in (first, *others)}) == 1 + len(others)
    assert task.metrics()[0] is not first


@pytest.mark.usefixtures("boxes")
class TestTargetsThatAreDicts:
    def test_are_drawn_in_balance_by_their_stratum(self) -> None:
        splits = load_splits(config_of(name="boxes"))
        for images, size in ((splits.reward(), 10), (splits.calibration(), 8)):
            counts = np.bincount([len(target["boxes"]) for target in images.targets])
            assert counts.tolist() == [0, size, size, size]

    def test_stay_with_their_images(self) -> None:
        splits = load_splits(config_of(name="boxes"))
        images, every = splits.reward(), splits.source.targets("train")
        for place, index in enumerate(splits.reward_indices):
            assert torch.equal(images.targets[place]["boxes"], every[index]["boxes"])
        backwards = images.at(torch.arange(29, -1, -1)).to("cpu")
        assert torch.equal(backwards.images[0], images.images[29])
        assert torch.equal(backwards.targets[0]["boxes"], images.targets[29]["boxes"])

    def test_are_searched_with_as_any_others_and_the_records_name_the_quality(self) -> None:
        config = config_of(name="boxes")
        splits = load_splits(config)
        problem = build_problem(config, splits, load_model(config, splits))
        outcome = problem.baseline
        assert outcome.quality == pytest.approx(1.0 / (1.0 + outcome.loss), rel=1e-5)
        trial = problem.attempt(problem.budget.uniform(), "uniform")
        record = trial.as_record()
        assert 0.0 < record["nearness"] < 1.0
        assert "accuracy" not in record
        again = problem.again()
        again.recorded_trials = [trial.record()]
        assert again.attempt(problem.budget.uniform(), "uniform").outcome.quality == record["nearness"]

    @pytest.mark.parametrize("name", ["taylor", "hutchinson"])
    def test_are_scored_by_the_task_s_loss(self, name: str) -> None:
        scores = score_channels(name, box_context())
        assert all(np.isfinite(values).all() and values.any() for values in scores.values())

    def test_that_cannot_be_drawn_are_refused_by_the_task(self) -> None:
        with pytest.raises(ConfigError, match="boxes cannot be drawn from a network's prediction"):
            score_channels("fisher", box_context())

    def test_are_learned_from_a_dict_of_losses(self) -> None:
        config = config_of("pretrain.epochs=6", "pretrain.batch_size=12", name="boxes")
        splits = load_splits(config)
        torch.manual_seed(0)
        losses: list[float] = []
        train_network(
            ToyResNet(4, classes=BOXES),
            splits,
            config.pretrain,
            0,
            torch.device("cpu"),
            make_task(config.task),
            lambda _, loss: losses.append(loss),
        )
        assert losses[-1] < 0.5 * losses[0]

    def test_that_are_not_right_or_wrong_are_not_raced(self) -> None:
        with pytest.raises(ConfigError, match=r"search\.racing: true given with task\.name=boxes; .* nearness is not"):
            check_names(config_of("search.racing=true", name="boxes"))
        check_names(config_of(name="boxes"))
