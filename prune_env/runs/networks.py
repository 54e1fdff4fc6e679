"""Measures several networks on the same data: quality, costs, size and latency."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from prune_env.common.errors import ModelError
from prune_env.common.latency import Latency, measure_latency
from prune_env.data import Batch, Splits
from prune_env.data.timing import batch_to_time
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.measuring import measure_all
from prune_env.models import weights_bytes
from prune_env.plan import PlannedCosts, PruningPlan
from prune_env.tasks import Core, Task, core_of, quality_of

LATENCY_BATCH = 32
"""Default number of images in the timed batch."""


@dataclass(frozen=True)
class NetworkRow:
    """The measurements of one network.

    Attributes:
        name: The network's name in tables.
        task: The network's task.
        reward_quality: Quality on the reward set, in [0, 1].
        test: Every metric on the test set by name, and the ``loss``; empty without test images.
        macs: MACs for one image.
        params: Number of weights.
        size: Size of the safetensors file in bytes.
        latency: Seconds per batch; None if not measured.
        core_latency: Seconds per batch of the part up to the network's decisions (`Core`); None if not measured or if
            the network has no such part.
        core_title: What that part is.
        reward_images: Number of images of the reward set; 0 if not known.
        right: Which test images the network gets right, bool [images]; None if the task's quality does not say so.
    """

    name: str
    task: Task
    reward_quality: float
    test: Mapping[str, float]
    macs: int
    params: int
    size: int
    latency: Latency | None
    core_latency: Latency | None = None
    core_title: str = ""
    reward_images: int = 0

    @property
    def final(self) -> tuple[float, str]:
        """The quality that decides between networks, and its set: ``test``, or ``reward`` without test images."""
        name = quality_of(self.task).name
        return (self.test[name], "test") if self.test else (self.reward_quality, "reward")

    right: Tensor | None = field(default=None, compare=False, repr=False)

    def as_record(self) -> dict[str, Any]:
        """The row as plain data."""
        core = {} if self.core_latency is None else {"core_latency_ms": _milliseconds(self.core_latency)}
        return {
            "name": self.name,
            f"reward_{quality_of(self.task).name}": self.reward_quality,
            **{f"test_{name}": value for name, value in self.test.items()},
            "macs": self.macs,
            "params": self.params,
            "bytes": self.size,
            "latency_ms": self.latency and _milliseconds(self.latency),
            **core,
        }


def _milliseconds(latency: Latency) -> dict[str, float]:
    return {key: 1e3 * getattr(latency, key) for key in ("median", "q1", "q3")}


def compare_plans(
    evaluator: Evaluator, splits: Splits, plans: Mapping[str, PruningPlan], batch: int | None = LATENCY_BATCH
) -> list[NetworkRow]:
    """Measures the networks of several plans: reward set, test set, costs and latency.

    Args:
        evaluator: The evaluator of the network that the plans are for.
        splits: The data. No search reads the test set.
        plans: Plans by name; their networks are timed in turn.
        batch: Images in the timed batch; None skips the timing.
    """
    networks = {name: (evaluator.pruned(plan), plan.costs) for name, plan in plans.items()}
    return compare_networks(evaluator, splits, networks, batch)


def compare_networks(
    evaluator: Evaluator,
    splits: Splits,
    networks: Mapping[str, tuple[nn.Module, PlannedCosts]],
    batch: int | None = LATENCY_BATCH,
) -> list[NetworkRow]:
    """Measures several networks, as `compare_plans`.

    Args:
        evaluator: An evaluator of the dense network.
        splits: The data.
        networks: Networks with their costs, by name.
        batch: Images in the timed batch; None skips the timing.
    """
    for model, _ in networks.values():
        model.to(evaluator.device).to(memory_format=evaluator.execution.memory_format).eval()
    models = {name: model for name, (model, _) in networks.items()}
    latencies, cores = {}, {}
    if batch:
        images = batch_to_time(splits, batch, evaluator.device, evaluator.execution.memory_format)
        cores = cores_of(evaluator.task, models, images)
        latencies = measure_latency(
            {**models, **{f"{name}, core": core.module for name, core in cores.items()}}, images
        )
    rows = []
    for name, (model, costs) in networks.items():
        test: dict[str, float] = {}
        right = None
        if len(splits.test_indices):
            test, right = measure_all(model, test_batches(evaluator, splits), evaluator.task)
        row = NetworkRow(
            name,
            evaluator.task,
            evaluator.measure(model),
            test,
            costs.macs,
            costs.params,
            len(weights_bytes(model)),
            latencies.get(name),
            latencies.get(f"{name}, core"),
            cores[name].title if name in cores else "",
            evaluator.images,
            right,
        )
        rows.append(row)
    return rows


def cores_of(task: Task, models: Mapping[str, nn.Module], images: Tensor) -> dict[str, Core]:
    """The networks' parts up to their decisions, by name; without those that have no such part."""
    cores = {}
    for name, model in models.items():
        with suppress(ModelError):
            if (core := core_of(task, model, images)) is not None:
                cores[name] = core
    return cores


def test_batches(evaluator: Evaluator, splits: Splits) -> Iterator[Batch]:
    """The batches of the test set, on the evaluator's device and in its layout."""
    for part in splits.test_batches(evaluator.execution.batch or evaluator.images):
        batch = part.to(evaluator.device)
        yield Batch(batch.images.contiguous(memory_format=evaluator.execution.memory_format), batch.targets)
