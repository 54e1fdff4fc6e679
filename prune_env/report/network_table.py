"""The table of several networks, and the warnings about them."""

from collections.abc import Sequence

import torch
from rich.table import Table

from prune_env.common.latency import Latency
from prune_env.common.timing import is_faster
from prune_env.common.words import counted
from prune_env.evaluation.dense import far_above
from prune_env.report.fitting import FirstThatFits, plain_table
from prune_env.runs.networks import LATENCY_BATCH, NetworkRow
from prune_env.tasks import quality_of


def warnings_of(rows: Sequence[NetworkRow]) -> list[str]:
    """Warnings about networks that are far better than the first (dense) row, or have fewer MACs and are not faster."""
    dense = rows[0]
    metric = quality_of(dense.task)
    warnings = [
        f"{row.name} is far better than the dense network on the reward set ({row.reward_quality:{metric.format}} "
        f"against {dense.reward_quality:{metric.format}}). That is no gain by pruning: the images are not prepared as "
        "in the dense network's training (data.image_size, data.mean, data.std), or its training was too short."
        for row in rows[1:]
        if far_above(row.reward_quality, dense.reward_quality, metric, row.reward_images)
    ]
    for row in rows[1:]:
        if row.latency is None or dense.latency is None:
            continue
        macs, time = row.macs / dense.macs, row.latency.median / dense.latency.median
        if is_faster(macs, 1.0) and not is_faster(time, 1.0):
            warnings.append(
                f"{row.name} does {macs:.0%} of the MACs but takes {time:.0%} of the time: narrow layers, "
                "groups and stripes use this machine badly. Try another batch or number of threads, a wider "
                "env.round_to, `prune-env export --to onnx`, or whole channels with budget.metric=latency."
            )
    return warnings


def render(rows: list[NetworkRow], title: str, batch: int = LATENCY_BATCH) -> FirstThatFits:
    """The table for the console; the first row is the dense network.

    Where room is short, it shows quality, shares of MACs and params, and milliseconds, and the rest as far as it fits.
    """
    timed = f"ms a batch of {batch}", counted(torch.get_num_threads(), "thread")
    whole = _table(rows, title, "\n".join((f"{timed[0]},", timed[1])))
    short = f"{title}\n{timed[0]}, {timed[1]}"
    return FirstThatFits(whole, _table(rows, title, "\n".join(timed), file=False), _narrow_table(rows, short))


def _table(rows: list[NetworkRow], title: str, timed: str, file: bool = True) -> Table:
    """All measurements; the size of the file and the loss only with ``file``."""
    dense = rows[0]
    quality, *others = dense.task.metrics()
    # A console of 120 columns cuts a wider table's headings.
    table = plain_table(title, close=bool(dense.core_title))
    metrics = (f"test\n{quality.title}", *(f"\n{metric.title}" for metric in others), *(["\nloss"] if file else []))
    cores = [f"ms\n{dense.core_title}"] if dense.core_title else []
    _add_columns(table, "", "reward\nset", *metrics, "MACs", "params", *(["file"] if file else []), timed, *cores)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.reward_quality:{quality.format}}",
            *(f"{row.test[metric.name]:{metric.format}}" if row.test else "-" for metric in (quality, *others)),
            *([f"{row.test['loss']:.3f}" if row.test else "-"] if file else []),
            f"{_short(row.macs)} {_share(row.macs, dense.macs)}",
            f"{_short(row.params)} {_share(row.params, dense.params)}",
            *([f"{_short(row.size)}B"] if file else []),
            _milliseconds(row.latency),
            *([f"{1e3 * row.core_latency.median:.1f}" if row.core_latency else "not measured"] if cores else []),
        )
    return table


def _narrow_table(rows: list[NetworkRow], title: str) -> Table:
    """Quality, shares of MACs and params, and the median time."""
    dense, table = rows[0], plain_table(title)
    quality = dense.task.metrics()[0]
    _add_columns(table, "", "reward set", f"test {quality.title}", "MACs", "params", "ms")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.reward_quality:{quality.format}}",
            f"{row.test[quality.name]:{quality.format}}",
            _share(row.macs, dense.macs),
            _share(row.params, dense.params),
            "-" if row.latency is None else f"{1e3 * row.latency.median:.1f}",
        )
    return table


def _add_columns(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)


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
