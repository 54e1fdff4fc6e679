"""Trainer: epoch after epoch of stochastic gradient descent, each a function of the state before it and its number."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prune_env.common.errors import EvaluationError
from prune_env.config.training import TrainingSection
from prune_env.data import Batch
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.granularity.base import Trainable
from prune_env.recover.batches import Batches, seed_of
from prune_env.recover.loss import training_loss
from prune_env.recover.workers import Workers
from prune_env.tasks import Task, quality_of

MOMENTUM = 0.9

LOOKS = 20
"""Steps after which the loss is looked at anew: more often would hold up a GPU."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        number: From 1.
        loss: Mean over its batches.
        learning_rate: At its end.
        seconds: How long it took.
        waiting: Share of that time in which the network waited for images, in [0, 1].
        quality: On the validation images, in [0, 1]; None where there are none.
    """

    number: int
    loss: float
    learning_rate: float
    seconds: float
    waiting: float
    quality: float | None = None

    def as_record(self, task: Task) -> dict[str, Any]:
        """The epoch as plain data, the quality under the name that the task gives it."""
        return {quality_of(task).name if key == "quality" else key: value for key, value in vars(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], task: Task) -> Self:
        """The epoch that `as_record` made plain.

        Raises:
            KeyError, TypeError: If the record is not of an epoch.
        """
        named = {field.name: field.name for field in fields(cls)} | {"quality": quality_of(task).name}
        return cls(**{key: record[name] for key, name in named.items()})


class Trainer:
    """Trains a network.

    Args:
        model: The network, trained in place, on the workers' device.
        batches: Its images; they say what the network is for.
        settings: How it is trained.
        seed: For what is random within the network.
        workers: Which process this is among those that share the training.
        execution: How its steps run.
        teacher: A network whose outputs the trained one's is to be like; None for none.
        trainable: What is trained beside the network's weights; None for nothing.

    Attributes:
        done: Epochs behind it.
        result: The network to keep: the moving average of the weights where there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        settings: TrainingSection,
        seed: int,
        workers: Workers,
        execution: ExecutionSettings | None = None,
        teacher: nn.Module | None = None,
        trainable: Trainable | None = None,
    ) -> None:
        self.batches = batches
        self.task = batches.task
        self.settings = settings
        self.seed = seed
        self.workers = workers
        self.execution = execution or ExecutionSettings.for_training()
        self.teacher = teacher
        self.trainable = trainable
        self.done = 0
        self._model = model.to(workers.device).to(memory_format=self.execution.memory_format)
        self._average = None
        if settings.average:
            decay = 1.0 - 1.0 / max(1.0, settings.average * self.steps)
            self._average = AveragedModel(self._model, multi_avg_fn=_moving_average(decay), use_buffers=True).eval()
        if trainable is not None:
            trainable.attach(self._model, self._average, workers.mean)
        self._wrapped = workers.wrapped(self._model)
        self._optimizer = torch.optim.SGD(
            _groups(model, settings.weight_decay), settings.learning_rate, momentum=MOMENTUM, nesterov=True
        )

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.settings.epochs * len(self.batches)

    @property
    def result(self) -> nn.Module:
        """The network to keep."""
        found: nn.Module = self._model if self._average is None else self._average.module
        return found

    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> Epoch:
        """Trains for one epoch more.

        Args:
            on_step: Hears of each step, by its number in the epoch from 1.

        Raises:
            EvaluationError: If the loss is not finite. The network is of no use any more; a checkpoint may be.
        """
        number = self.done + 1
        started, waited = time.perf_counter(), self.batches.seconds
        self._wrapped.train()
        total = torch.zeros((), device=self.workers.device)
        devices = [self.workers.device] if self.workers.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed_of(self.seed, number, self.workers.rank))
            for step, batch in enumerate(self.batches.epoch(number), start=1):
                total += self._step(self.done * len(self.batches) + step, batch)
                if step % LOOKS == 0 or step == len(self.batches):
                    self._look(number, step, total)
                on_step(step)
        self._wrapped.eval()
        # The loss was taken before the last step.
        if not all(bool(tensor.isfinite().all()) for tensor in self.result.state_dict().values()):
            raise self._diverged(number, len(self.batches), "weights are not finite")
        self.done = number
        seconds = time.perf_counter() - started
        loss = float(self.workers.mean(total)) / len(self.batches)
        rate = float(self._optimizer.param_groups[0]["lr"])
        return Epoch(number, loss, rate, seconds, (self.batches.seconds - waited) / seconds)

    def _step(self, number: int, batch: Batch) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.share_of_rate(number)
        batch = Batch(batch.images.contiguous(memory_format=self.execution.memory_format), batch.targets)
        if self.trainable is not None:
            self.trainable.progress(number / self.steps)
        with self.execution.casting(self.workers.device):
            aim = None
            if self.teacher is not None:
                with torch.no_grad():
                    aim = self.task.forward(self.teacher, batch)
            outputs = self.task.forward(self._wrapped, batch)
        loss = training_loss(outputs, batch, self.settings, self.task, aim)
        if self.trainable is not None:
            loss = loss + self.trainable.penalty()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        return loss.detach()

    def share_of_rate(self, step: int) -> float:
        """The learning rate in a step, from 1, as a share of the highest: up evenly, down as a cosine."""
        rising = self.settings.warmup * self.steps
        if step <= rising:
            return step / rising
        return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (self.steps - rising + 1.0)))

    def _look(self, number: int, step: int, total: Tensor) -> None:
        loss = float(self.workers.mean(total))
        if not math.isfinite(loss):
            raise self._diverged(number, step, f"the loss is {loss}")

    def _diverged(self, number: int, step: int, how: str) -> EvaluationError:
        return EvaluationError(
            f"Training diverged in epoch {number}, step {step} of {len(self.batches)}: {how}. Lower learning_rate "
            f"(given {self.settings.learning_rate})."
        )

    def state(self) -> dict[str, Tensor]:
        """All that the next epoch depends on beside the settings, on the CPU, each tensor with memory of its own."""
        found = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        if self._average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self._average.state_dict().items()}
        for name, parameter in self._model.named_parameters():
            momentum = self._optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                found[f"momentum.{name}"] = momentum
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}

    def resume(self, state: Mapping[str, Tensor], done: int) -> None:
        """Goes on from what `state` gave after so many epochs.

        Raises:
            KeyError, RuntimeError: If the state is of another network.
        """
        self._model.load_state_dict(_under("model.", state))
        if self._average is not None:
            self._average.load_state_dict(_under("average.", state))
        momenta = _under("momentum.", state)
        for name, parameter in self._model.named_parameters():
            if name in momenta:
                self._optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momenta[name])
        if self.trainable is not None:
            self.trainable.resume(done / self.settings.epochs)
        self.done = done


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """A step of the average of tensors of one type: what is counted or indexed is taken as it is."""
    average = get_ema_multi_avg_fn(decay)

    def step(averages: Any, current: Any, steps: Any) -> None:
        if averages[0].is_floating_point():
            average(averages, current, steps)
        else:
            torch._foreach_copy_(averages, current)

    return step


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters with and without weight decay: biases and what a norm scales are left alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
