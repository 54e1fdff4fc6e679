"""Every promise that a task can break, and the sentence that says so."""

from typing import Any

import pytest
import torch
from toy import CLASSES, COLOURS, SIDE, ToyResNet

from prune_env.common.errors import ConfigError
from prune_env.data import Batch
from prune_env.tasks import Metric, Reduction
from prune_env.tasks.classification import Accuracy, Classification
from prune_env.testing import check_task

pytestmark = pytest.mark.usefixtures("same_global_state")


class Averaging(Classification):
    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> torch.Tensor:
        return super().loss(outputs, batch, "mean" if reduction == "none" else reduction, smoothing)


class Percent(Accuracy):
    def compute(self) -> float:
        return 100.0 * super().compute()


class Forgetful(Accuracy):
    def update(self, outputs: Any, batch: Batch) -> None:
        self.reset()
        super().update(outputs, batch)


class InPercent(Classification):
    def metrics(self) -> tuple[Metric, ...]:
        return (Percent(),)


class LastBatch(Classification):
    def metrics(self) -> tuple[Metric, ...]:
        return (Forgetful(),)


class Shared(Classification):
    kept = (Accuracy(),)

    def metrics(self) -> tuple[Metric, ...]:
        return self.kept


class Unlearning(Classification):
    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> torch.Tensor:
        return super().loss(outputs.detach(), batch, reduction, smoothing)


class Rolling(Classification):
    def augment(self, batch: Batch, draws: torch.Tensor, name: str) -> Batch:  # noqa: ARG002
        return Batch(batch.images + torch.rand(()), batch.targets)


class TestTask:
    def model(self) -> ToyResNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ToyResNet(4)

    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(0)
        return Batch(torch.randn(6, COLOURS, SIDE, SIDE, generator=generator), torch.arange(6) % CLASSES)

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'classification'"):
            check_task("clasification", self.model(), self.batch())

    @pytest.mark.parametrize(
        ("task", "words"),
        [
            (Averaging, r"the loss of 6 images is .*one finite number of at least 0 for each"),
            (InPercent, r"the quality, 'accuracy', is \d.*It must be in \[0, 1\]"),
            (LastBatch, r"'accuracy' is .* for the images at once, and .* one by one"),
            (Shared, r"metrics\(\) gives the same objects twice"),
            (Unlearning, r"the loss in training has no gradient"),
            (Rolling, r"augment\(\) with 'none' gives other images for the same numbers"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, task: type[Classification], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^task 'classification'.*{words}"):
            check_task(task, self.model(), self.batch())
