"""Trainer: stochastic gradient descent in epochs; an epoch depends only on the state before it and its number."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prune_env.common.errors import EvaluationError, RunError
from prune_env.common.gradients import backward, refuse_frozen
from prune_env.common.ranges import Count, Duration, Quality
from prune_env.common.text import shorten
from prune_env.common.training_part import TrainingPart
from prune_env.config.training import TrainingSection
from prune_env.data import Batch
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover.batches import Batches, seed_of
from prune_env.recover.loss import training_loss
from prune_env.recover.teacher import Lesson, Teacher
from prune_env.recover.workers import Workers
from prune_env.tasks import Task, quality_of

MOMENTUM = 0.9

LOOKS = 20
"""Steps between two checks that the loss is finite: more frequent checks would stall a GPU."""


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch.

    Attributes:
        number: From 1.
        loss: Mean over the epoch's batches.
        learning_rate: At the end of the epoch.
        seconds: Duration of the epoch.
        waiting: Share of the duration in which the network waited for images, in [0, 1].
        quality: On the validation images, in [0, 1]; None if there are none.
    """

    number: Count
    loss: float
    learning_rate: Annotated[float, Field(ge=0)]
    seconds: Duration
    waiting: float
    quality: Quality | None = None

    def as_record(self, task: Task) -> dict[str, Any]:
        """The epoch as plain data, with the quality under the task's name for it."""
        return {quality_of(task).name if key == "quality" else key: value for key, value in vars(self).items()}


class Trainer:
    """Trains a network.

    Args:
        model: The network, trained in place, on the workers' device.
        batches: The training images, with the task of the network.
        settings: Settings of the training.
        seed: Seed of the network's random layers, such as dropout.
        workers: This process among those that share the training.
        execution: Execution settings of the steps.
        teacher: A network whose outputs the trained network imitates; None for no teacher.
        trainable: Trained besides the network's weights; None for weights alone.

    Attributes:
        done: Number of finished epochs.
        result: The network to keep: the moving average of the weights if ``settings.average`` is above 0.

    Raises:
        ModelError: If no parameter of the network can be trained.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        settings: TrainingSection,
        seed: int,
        workers: Workers,
        execution: ExecutionSettings | None = None,
        teacher: Teacher | None = None,
        trainable: TrainingPart | None = None,
    ) -> None:
        refuse_frozen(model)
        self.batches = batches
        self.task = batches.task
        self.settings = settings
        self.seed = seed
        self.workers = workers
        self.execution = execution or ExecutionSettings.for_training()
        self.teacher = teacher
        if teacher is not None:
            teacher.prepare(workers.device, self.execution)
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
        kept: nn.Module = self._model if self._average is None else self._average.module
        return kept

    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> Epoch:
        """Trains for one more epoch.

        Args:
            on_step: Called after each step with its number in the epoch, from 1.

        Raises:
            EvaluationError: If the loss or a weight is not finite. The network is then unusable; an earlier checkpoint
                may still be good.
            ModelError: If the network's outputs do not fit the task, or no gradient reaches a parameter.
        """
        number = self.done + 1
        started, waited = time.perf_counter(), self.batches.seconds
        self._wrapped.train()
        total = torch.zeros((), device=self.workers.device)
        devices = [self.workers.device] if self.workers.device.type == "cuda" else []
        lesson = self.teacher.lesson(number, self.batches, self.execution) if self.teacher is not None else None
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed_of(self.seed, number, self.workers.rank))
            for step, batch in enumerate(self.batches.epoch(number), start=1):
                total += self._step(step, batch, lesson)
                if step % LOOKS == 0 or step == len(self.batches):
                    self._check_loss(number, step, total)
                on_step(step)
        self._wrapped.eval()
        # The last step changed the weights after the last loss was computed.
        if not all(bool(tensor.isfinite().all()) for tensor in self.result.state_dict().values()):
            raise self._diverged(number, len(self.batches), "weights are not finite")
        self.done = number
        seconds = time.perf_counter() - started
        loss = float(self.workers.mean(total)) / len(self.batches)
        rate = float(self._optimizer.param_groups[0]["lr"])
        return Epoch(number, loss, rate, seconds, (self.batches.seconds - waited) / seconds)

    def _step(self, step: int, batch: Batch, lesson: Lesson | None) -> Tensor:
        number = self.done * len(self.batches) + step
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.share_of_rate(number)
        batch = Batch(batch.images.contiguous(memory_format=self.execution.memory_format), batch.targets)
        if self.trainable is not None:
            self.trainable.progress(number / self.steps)
        teacher_outputs = lesson.outputs(step, batch) if lesson is not None else None
        with self.execution.casting(self.workers.device):
            outputs = self.task.forward(self._wrapped, batch)
        loss = training_loss(outputs, batch, self.settings, self.task, teacher_outputs)
        if self.trainable is not None:
            loss = loss + self.trainable.penalty()
        self._optimizer.zero_grad()
        backward(loss)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        return loss.detach()

    def share_of_rate(self, step: int) -> float:
        """The learning rate of a step (from 1) as a share of the highest rate: linear warm-up, then cosine decay."""
        rising = self.settings.warmup * self.steps
        if step <= rising:
            return step / rising
        return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (self.steps - rising + 1.0)))

    def _check_loss(self, number: int, step: int, total: Tensor) -> None:
        loss = float(self.workers.mean(total))
        if not math.isfinite(loss):
            raise self._diverged(number, step, f"the loss is {loss}")

    def _diverged(self, number: int, step: int, reason: str) -> EvaluationError:
        return EvaluationError(
            f"Training diverged in epoch {number}, step {step} of {len(self.batches)}: {reason}. Lower learning_rate "
            f"(given {self.settings.learning_rate})."
        )

    def state(self) -> dict[str, Tensor]:
        """The tensors that the next epoch depends on besides the settings, copied to the CPU without shared memory."""
        tensors = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        if self._average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self._average.state_dict().items()}
        for name, parameter in self._model.named_parameters():
            momentum = self._optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def resume(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continues from an earlier result of `state`.

        Args:
            state: The result of `state`.
            done: Number of epochs that were finished then.

        Raises:
            RunError: If the state belongs to another network; names the first tensor that differs.
        """
        self._check_state(state)
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

    def _check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuses a state with other tensors than this trainer's; a parameter without gradients has no momentum."""
        needed = self.state()
        momenta = {f"momentum.{name}": parameter for name, parameter in self._model.named_parameters()}
        for name in sorted(needed.keys() | state.keys()):
            own, given = needed.get(name, momenta.get(name)), state.get(name)
            if own is None or given is None or own.shape != given.shape:
                has = "is missing" if given is None else f"has the shape {list(given.shape)}"
                needs = "has no such tensor" if own is None else f"needs the shape {list(own.shape)}"
                raise RunError(
                    f"The checkpoint is of another network: {shorten(repr(name))} {has}, and this network {needs}. "
                    "Move the training's folder away and start the training again."
                )


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The update of the moving average, for tensors of one type; copies integer tensors (counters, indices)."""
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
    """Parameter groups with and without weight decay: biases and parameters of norms have none."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
