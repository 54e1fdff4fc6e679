"""The side-by-side table: what several plans of one network keep, cost and take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor, nn

from prune_env.data import Splits, load_images
from prune_env.evaluate import Evaluator, measure_accuracy
from prune_env.latency import Latency, measure_latency
from prune_env.plan import PruningPlan

LATENCY_BATCH = 32
"""Images in the batch that is timed."""


@dataclass(frozen=True)
class Row:
    """What one plan gives; accuracies in [0, 1], latency in seconds a batch or None where it was not measured."""

    name: str
    reward_accuracy: float
    test_accuracy: float
    macs: int
    params: int
    latency: Latency | None

    def as_record(self) -> dict[str, Any]:
        """The row as plain data."""
        latency = self.latency
        milliseconds = latency and {key: 1e3 * getattr(latency, key) for key in ("median", "q1", "q3")}
        return {
            "name": self.name,
            "reward_accuracy": self.reward_accuracy,
            "test_accuracy": self.test_accuracy,
            "macs": self.macs,
            "params": self.params,
            "latency_ms": milliseconds,
        }


def compare_plans(
    evaluator: Evaluator, splits: Splits, plans: Mapping[str, PruningPlan], timed: bool = True
) -> list[Row]:
    """Measures plans side by side: reward set, test set, costs and latency.

    Args:
        evaluator: The evaluator of the network that the plans are for.
        splits: Its data; the test set is read here and nowhere before.
        plans: Plans by name; the networks are timed in turn.
        timed: Whether their latency is measured.
    """
    models: dict[str, nn.Module] = {name: evaluator.pruned(plan) for name, plan in plans.items()}
    latencies = measure_latency(models, _latency_batch(evaluator, splits)) if timed else {}
    rows = []
    for name, plan in plans.items():
        accuracy = measure_accuracy(models[name], test_batches(evaluator, splits)).accuracy
        reward = evaluator.measure(models[name])
        rows.append(Row(name, reward, accuracy, plan.costs.macs, plan.costs.params, latencies.get(name)))
    return rows


def test_batches(evaluator: Evaluator, splits: Splits) -> Iterator[tuple[Tensor, Tensor]]:
    """The test set, batch by batch, where the evaluator's networks are."""
    for batch in splits.test_batches(evaluator.form.batch):
        images = batch.images.to(evaluator.device).contiguous(memory_format=evaluator.form.memory_format)
        yield images, batch.labels.to(evaluator.device)


def _latency_batch(evaluator: Evaluator, splits: Splits) -> Tensor:
    """Images to time, repeated where there are fewer than a batch; their content does not matter."""
    images = load_images(splits.source, "train", splits.reward_indices[:LATENCY_BATCH]).images
    images = images.repeat(-(-LATENCY_BATCH // len(images)), 1, 1, 1)[:LATENCY_BATCH]
    return images.to(evaluator.device).contiguous(memory_format=evaluator.form.memory_format)


def render(rows: list[Row], title: str) -> Table:
    """The table for the console."""
    dense = rows[0]
    table = Table(title=title, box=SIMPLE, title_justify="left", pad_edge=False)
    for heading in ("", "reward\nset", "test\nset", "MACs", "params", f"ms a batch\nof {LATENCY_BATCH}"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.reward_accuracy:.2%}",
            f"{row.test_accuracy:.2%}",
            f"{_short(row.macs)} {_share(row.macs, dense.macs)}",
            f"{_short(row.params)} {_share(row.params, dense.params)}",
            _milliseconds(row.latency),
        )
    return table


def _share(part: int, whole: int) -> str:
    return "100%" if part == whole else f"{part / whole:.1%}"


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)


def _milliseconds(latency: Latency | None) -> str:
    if latency is None:
        return "not measured"
    return f"{1e3 * latency.median:.1f} ({1e3 * latency.q1:.1f}-{1e3 * latency.q3:.1f})"
