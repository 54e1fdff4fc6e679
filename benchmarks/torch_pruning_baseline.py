"""A plan evaluated with Torch-Pruning, beside our evaluation: `python -m benchmarks.torch_pruning_baseline CONFIG`.

The baseline is a script with Torch-Pruning and nothing else. It runs in a process of its own, because the
handling of freed memory (`prune_env.common.memory`) is a setting of the whole process.
"""

import copy
import pickle
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import numpy as np
import torch
import torch_pruning
from rich.progress import track
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import BatchNorm
from prune_env.commands.bench_episode import Rounds, ready_bench
from prune_env.commands.common import AsJson, ConfigArgument, Overrides, console, print_json, results, run_command
from prune_env.common.errors import EvaluationError
from prune_env.data import ImageSet
from prune_env.evaluation.measuring import measure
from prune_env.plan import PruningPlan
from prune_env.runs.settings import read_settings
from prune_env.tasks import Task
from prune_env.walk.unit import Unit

BATCH = 256


def compare_with_torch_pruning(
    config: ConfigArgument, overrides: Overrides = None, rounds: Rounds = 11, as_json: AsJson = False
) -> None:
    """Times the agent's plans as the search evaluates them and with Torch-Pruning, in turn; reports medians."""
    bench = ready_bench(read_settings(config, overrides or ()), 2 * rounds)
    problem, evaluator = bench.problem, bench.problem.evaluator
    ours: list[float] = []
    plain: list[float] = []
    images = bench.splits.reward(), bench.splits.calibration()
    with TorchPruningBaseline(problem.walk.model, *images, evaluator.device, evaluator.task) as baseline:
        for _ in track(range(rounds), "timing", console=console):
            trial = bench.round()
            if trial is not None:
                ours.append(bench.seconds["evaluation"][-1])
                plain.append(baseline.seconds(removed_channels(problem.budget.units, trial.plan)))
    record = {
        **{key: bench.record()[key] for key in ("model", "units", "images", "plans", "evaluation_s")},
        "baseline_s": statistics.median(plain),
        "baseline_over_ours": statistics.median(np.divide(plain, ours).tolist()),
    }
    if as_json:
        print_json(record)
        return
    results.print(
        f"{record['model']}, {record['units']} free units, medians of {record['plans']} plans: an evaluation takes "
        f"{record['evaluation_s']:.4f} s, the baseline {record['baseline_s']:.4f} s; baseline over ours "
        f"{record['baseline_over_ours']:.2f}."
    )


def removed_channels(units: Sequence[Unit], plan: PruningPlan) -> dict[str, list[int]]:
    """The output channels that a plan cuts, by the layer that gives the unit its name."""
    removed: dict[str, list[int]] = {}
    for unit in units:
        gone = np.setdiff1d(np.arange(unit.channels), plan.kept[unit.name])
        own = next(member for member in unit.members if (member.module, member.side) == (unit.layer, "out"))
        if len(gone):
            removed.setdefault(unit.layer, []).extend(own.index[gone].ravel().tolist())
    return removed


def prune_with_torch_pruning(
    model: nn.Module, example_input: Tensor, removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy of a network, cut as a user of Torch-Pruning would.

    Args:
        model: The network in eval mode, on gradients; untouched.
        example_input: A batch of inputs.
        removed: Output channels to cut, by the name of a convolution or linear layer.
    """
    small = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(small, example_input, verbose=False)
    for name, channels in removed.items():
        layer = small.get_submodule(name)
        cut = graph.get_pruner_of_module(layer).prune_out_channels
        graph.get_pruning_group(layer, cut, idxs=list(channels)).prune()
    return small


class TorchPruningBaseline:
    """Deep copy, Torch-Pruning, recalibration and reward set: float32, contiguous, unfolded, from memory.

    Args:
        model: The dense network in eval mode.
        reward: The reward set.
        calibration: The calibration set.
        device: Where the network runs.
        task: What the network is for.
    """

    def __init__(
        self, model: nn.Module, reward: ImageSet, calibration: ImageSet, device: torch.device, task: Task
    ) -> None:
        # Send bytes, which go through a pipe: tensors would need shared memory, and a container has little of it.
        given = pickle.dumps((model, reward, calibration, task))
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _take, (given, device, torch.get_num_threads()))

    def seconds(self, removed: Mapping[str, Sequence[int]]) -> float:
        """Times one plan, in seconds.

        Args:
            removed: Output channels to cut, by the name of a convolution or linear layer.

        Raises:
            EvaluationError: If Torch-Pruning fails.
        """
        try:
            return self._pool.submit(_timed, dict(removed)).result()
        except Exception as error:  # whatever Torch-Pruning says of this network
            raise EvaluationError(
                f"Torch-Pruning cannot cut this network to the plan ({type(error).__name__}: {error}). Give another "
                "model.name, or protect what it fails at by env.protect."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


_given: tuple[nn.Module, ImageSet, ImageSet, torch.device, Task]


def _take(given: bytes, device: torch.device, threads: int) -> None:
    global _given
    torch.set_num_threads(threads)
    model, reward, calibration, task = pickle.loads(given)  # the process above made these bytes
    _given = model.to(device), reward, calibration, device, task


def _timed(removed: Mapping[str, Sequence[int]]) -> float:
    model, reward, calibration, device, task = _given
    started = time.perf_counter()
    small = prune_with_torch_pruning(model, calibration.images[:1].to(device), removed)
    norms = [module for module in small.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for images in calibration.images.split(BATCH):
            small(images.to(device))
    small.eval()
    measure(small, reward.to(device).batches(BATCH), task)
    return time.perf_counter() - started


if __name__ == "__main__":
    run_command(compare_with_torch_pruning)
