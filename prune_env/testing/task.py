"""Whether a task keeps the promises that evaluation, criteria and recovery rely on."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ConfigError
from prune_env.common.modes import in_eval_mode
from prune_env.common.randomness import global_randomness
from prune_env.config.task import TASKS
from prune_env.data import Batch, ImageSet
from prune_env.tasks import Task
from prune_env.testing.promises import Snapshot, explained, require


def check_task(task: str | type[Task], model: nn.Module, batch: Batch) -> None:
    """Checks that a task keeps its promises on a network and a batch of its data.

    The network runs on images alone in eval mode. The loss is one finite number of at least 0 for each image, and in
    training mode it has a gradient. The first metric is the quality in [0, 1], and no metric depends on how the images
    are batched. Drawn targets and varied images are functions of the numbers that they are given. Nothing changes the
    batch or the network.

    Args:
        task: A registered name, ``package.module:class``, or the class itself.
        model: A network for the task; it is left as it is.
        batch: Two images or more with their targets.

    Raises:
        AssertionError: Says which promise is broken.
        ConfigError: If there is no such task.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_env.data import Batch
        >>> from prune_env.testing import check_task
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> check_task("classification", model, Batch(torch.randn(4, 3, 8, 8), torch.tensor([0, 3, 9, 3])))
    """
    made: Task = TASKS.find(task)() if isinstance(task, str) else task()
    with global_randomness(0):
        _Check(f"task {made.name!r}", made, model, batch).run()


@dataclass(frozen=True)
class _Check:
    """One task, network and batch."""

    what: str
    task: Task
    model: nn.Module
    batch: Batch

    def run(self) -> None:
        require(len(self.batch.images) > 1, f"{self.what}: {len(self.batch.images)} image given; give two or more.")
        before, images = Snapshot(self.model), self.batch.images.clone()
        with in_eval_mode(self.model), torch.no_grad():
            with explained(f"{self.what}: the network does not run on images alone in eval mode"):
                self.model(self.batch.images)
            outputs = self.task.forward(self.model, self.batch)
            with explained(f"{self.what}: check() refuses the network's own outputs"):
                self.task.check(outputs, self.batch)
            self._check_loss(outputs)
            self._check_metrics(outputs)
            self._check_sampling(outputs)
        self._check_training(outputs)
        self._check_augmentation()
        with explained(f"{self.what}: stratum() gives values that cannot be hashed and sorted together"):
            strata: set[Any] = {self.task.stratum(target) for target in self.batch.targets}
            sorted(strata)
        changed = before.difference()
        require(changed is None, f"{self.what}: {changed}.")
        require(torch.equal(images, self.batch.images), f"{self.what}: it changes the batch's images; work on a copy.")

    def _check_loss(self, outputs: Any) -> None:
        count = len(self.batch.images)
        each = self.task.loss(outputs, self.batch)
        fits = tuple(each.shape) == (count,) and bool(each.isfinite().all()) and bool((each >= 0).all())
        require(
            fits,
            f"{self.what}: the loss of {count} images is {each}. It must be one finite number of at least 0 for each.",
        )
        for reduction, wanted in (("mean", each.mean()), ("sum", each.sum())):
            found = self.task.loss(outputs, self.batch, reduction)  # type: ignore[arg-type]
            require(
                found.ndim == 0 and math.isclose(float(found), float(wanted), rel_tol=1e-4, abs_tol=1e-6),
                f"{self.what}: the loss with reduction={reduction!r} is {found}; the single losses give {wanted}.",
            )

    def _check_metrics(self, outputs: Any) -> None:
        metrics, others = self.task.metrics(), self.task.metrics()
        names = [metric.name for metric in metrics]
        require(
            len(metrics) > 0 and len(set(names)) == len(names),
            f"{self.what}: its metrics are named {names}. There must be one or more, each with its own name.",
        )
        require(metrics[0] is not others[0], f"{self.what}: metrics() gives the same objects twice. Make new ones.")
        whole = self._measured(metrics, [(outputs, self.batch)])
        parts = ImageSet(self.batch.images, self.batch.targets).batches(1)
        single = self._measured(others, [(self.task.forward(self.model, part), part) for part in parts])
        require(0.0 <= whole[0] <= 1.0, f"{self.what}: the quality, {names[0]!r}, is {whole[0]}. It must be in [0, 1].")
        for name, one, two in zip(names, whole, single, strict=True):
            same = math.isclose(one, two, rel_tol=1e-4, abs_tol=1e-6)
            require(same, f"{self.what}: {name!r} is {one} for the images at once, and {two} for them one by one.")
        again = self._measured(metrics, [(outputs, self.batch)])
        require(again == whole, f"{self.what}: after reset() its metrics are {again}, and were {whole} at first.")

    def _measured(self, metrics: Sequence[Any], seen: Sequence[tuple[Any, Batch]]) -> list[float]:
        for metric in metrics:
            metric.reset()
            for outputs, batch in seen:
                metric.update(outputs, batch)
        return [float(metric.compute()) for metric in metrics]

    def _check_sampling(self, outputs: Any) -> None:
        try:
            drawn = [self.task.sampled(outputs, self.batch, torch.Generator().manual_seed(0)) for _ in range(2)]
        except ConfigError:  # a prediction may be no distribution
            return
        losses = [self.task.loss(outputs, batch, "sum") for batch in drawn]
        require(
            torch.equal(*losses), f"{self.what}: sampled() draws other targets from a generator with the same seed."
        )

    def _check_training(self, teacher: Any) -> None:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        modes = {module: module.training for module in self.model.modules()}
        self.model.train()
        try:
            outputs = self.task.forward(self.model, self.batch)
            losses = {"loss": self.task.loss(outputs, self.batch, "mean")}
            with suppress(ConfigError):  # a task may have none
                losses["distillation"] = self.task.distillation(outputs, teacher, self.batch, 2.0)
            for name, loss in losses.items():
                self._check_gradient(name, loss, parameters)
        finally:
            for module, training in modes.items():
                module.training = training
            self.model.load_state_dict(state)

    def _check_gradient(self, name: str, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        value = loss.detach()
        good = value.ndim == 0 and math.isfinite(float(value)) and float(value) >= -1e-6
        require(good, f"{self.what}: the {name} in training is {value}. It must be a finite scalar of at least 0.")
        found: Sequence[Tensor | None] = [None]
        if loss.requires_grad:
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        moved = any(gradient is not None and bool(gradient.any()) for gradient in found)
        require(moved, f"{self.what}: the {name} in training has no gradient for any parameter.")

    def _check_augmentation(self) -> None:
        draws = torch.rand(len(self.batch.images), self.task.draws, generator=torch.Generator().manual_seed(0))
        for name in ("none", "crop_flip"):
            first, second = (self.task.augment(self.batch, draws, name) for _ in range(2))
            require(
                torch.equal(first.images, second.images),
                f"{self.what}: augment() with {name!r} gives other images for the same numbers.",
            )
            require(
                len(first.images) == len(first.targets) == len(self.batch.images),
                f"{self.what}: augment() with {name!r} gives {len(first.images)} images with {len(first.targets)} "
                f"targets for {len(self.batch.images)}.",
            )
