"""The processes that share a training: one, or as many as ``accelerate launch`` has started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prune_env.common.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class Workers:
    """This process among those that share a training; here the only process (see `AcceleratedWorkers` for several).

    Attributes:
        rank: Index of this process, from 0.
        processes: Number of processes.
        device: Device of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.processes = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The network to run in training, so that all processes keep the same weights."""
        return model

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes."""
        return value

    def agree(self, value: T) -> T:
        """The first process's value, in every process."""
        return value


class AcceleratedWorkers(Workers):
    """The processes that Hugging Face Accelerate has started.

    Args:
        device: The configured device. ``cpu`` uses no GPU; a GPU with an index is allowed for a single process only.

    Raises:
        ConfigError: If the device is one GPU and there are several processes.
    """

    def __init__(self, device: torch.device) -> None:
        from accelerate import Accelerator  # takes seconds

        if device.type == "cuda" and device.index is not None:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ConfigError(
                    f"run.device: {device} given, but each of the several processes needs its own GPU. Give cuda."
                )
            os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
        # The training settings choose the number type, not a configuration of accelerate.
        self._accelerator: Accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        super().__init__(device if device.type == "cpu" else self._accelerator.device)
        self.rank, self.processes = self._accelerator.process_index, self._accelerator.num_processes
        self.agree(None)  # all processes must have started before one creates folders

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The network in DistributedDataParallel, with batch norms synchronised over all processes."""
        if self.processes == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        else:
            synchronise_norms(model)
        distributed: nn.Module = self._accelerator.prepare_model(model)
        return distributed

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes."""
        mean: Tensor = self._accelerator.reduce(value, "mean")
        return mean

    def agree(self, value: T) -> T:
        """The first process's value, in every process."""
        from accelerate.utils import broadcast_object_list

        values: list[Any] = [value]
        broadcast_object_list(values)
        first: T = values[0]
        return first


def synchronise_norms(model: nn.Module) -> None:
    """Replaces a network's batch norms, in place, by `SharedNorm`, whose statistics cover all processes."""
    for name, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            shared = SharedNorm(module.num_features, module.eps, module.momentum, module.affine)
            shared.__dict__.update(module.__dict__)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, shared)


class SharedNorm(_BatchNorm):
    """A batch norm over equal shares of a batch in all processes, on CPUs; torch's SyncBatchNorm needs GPUs."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [N, C, ...] by channel statistics over the images of all processes."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        values = input.float()
        processes = dist.get_world_size()
        shape = [1, -1, *[1] * (input.dim() - 2)]
        mean = _sum(values.mean(dim=axes)) / processes
        centred = values - mean.view(shape)
        variance = _sum(centred.square().mean(dim=axes)) / processes
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            count = input.numel() / input.shape[1] * processes
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                self.running_var.lerp_((variance * count / (count - 1.0)).to(self.running_var.dtype), share)
        result = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        normed: Tensor = result.to(input.dtype)
        return normed


class _Sum(torch.autograd.Function):
    """The sum over all processes; its backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)
    return total
