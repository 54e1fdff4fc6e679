"""The dry run of `prune-env inspect`: the units of a network, as plain data and as tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table

from prune_env.env.space import SearchSpace
from prune_env.evaluation.dense import DenseQuality
from prune_env.granularity import TextTable
from prune_env.protection.sensitivity import LayerEvidence
from prune_env.report.fitting import FirstThatFits, plain_table
from prune_env.walk.unit import Unit

BARS = " ▁▂▃▄▅▆▇█"


def inspect_space(space: SearchSpace, dense: DenseQuality, episode_seconds: float) -> dict[str, Any]:
    """The units, their costs, the protected units and the duration of an episode, as plain data.

    Args:
        space: The search space.
        dense: The quality of the dense network.
        episode_seconds: Seconds of an episode.
    """
    walk, budget = space.walk, space.budget
    free = {unit.name: number for number, unit in enumerate(budget.units)}
    evidence = space.report.by_unit() if space.report else {}

    def removable(unit: Unit) -> float:
        if unit.name not in free:
            return 0.0
        widths = budget.channels.copy()
        widths[free[unit.name]] = budget.least[free[unit.name]]
        return 1.0 - budget.cost(widths) / budget.dense

    units = [
        {
            "name": unit.name,
            "channels": unit.channels,
            "members": [{"module": member.module, "side": member.side} for member in unit.members],
            "removable_share": removable(unit),
            "low_rank_share": evidence[unit.name].low_rank_share if unit.name in evidence else None,
            "protected": unit.protected,
            "inexact": unit.inexact,
            "error": unit.error,
        }
        for unit in walk.units
    ]
    measured = space.granularity.measurements()
    return {
        "dense": {"macs": walk.macs(), "params": walk.params(), dense.metric.name: dense.quality},
        "units": units,
        "layers": [] if space.report is None else space.report.as_record()["layers"],
        "reach": {"macs": walk.reach("macs"), "params": walk.reach("params")},
        "budget": {
            "metric": budget.metric,
            "keep": budget.keep,
            "reachable": list(space.granularity.reachable(budget)),
            "also": {one.metric: {"keep": one.keep, "reachable": list(one.reachable)} for one in budget.also},
        },
        "latency": None if space.latency is None else space.latency.as_record(),
        "granularity": {
            "name": space.granularity.settings.name,
            "measured": None if measured is None else measured.as_record(),
        },
        "idle": list(walk.idle),
        "fixed_macs": dict(walk.cost_model.fixed_macs),
        "fixed_params": walk.cost_model.fixed_params,
        "seconds_per_episode": episode_seconds,
    }


def render_units(space: SearchSpace, record: dict[str, Any]) -> Iterator[FirstThatFits]:
    """The table of units and, if they were measured, the table of feature-map ranks.

    Args:
        space: The search space.
        record: The result of `inspect_space`.
    """
    yield FirstThatFits(_units_table(space, record), _units_table(space, record, coupling=False))
    if space.report is not None and space.report.layers:
        yield FirstThatFits(_ranks_table(space), _ranks_table(space, histograms=False))


def render_granularity(space: SearchSpace, batch: int) -> Iterator[FirstThatFits]:
    """The granularity's own tables; ``batch`` is the number of images in the timed batch."""
    for texts in space.granularity.tables(batch):
        yield FirstThatFits(_table_of(texts))


def _units_table(space: SearchSpace, record: dict[str, Any], coupling: bool = True) -> Table:
    table = plain_table("units, in forward order")
    table.add_column("unit", no_wrap=True)
    table.add_column("channels", justify="right")
    if coupling:
        table.add_column("coupled with -> read by", min_width=32)
    table.add_column(f"removable\n{space.budget.metric}", justify="right")
    table.add_column("low-rank\nmaps", justify="right")
    table.add_column("protected, or not exact", min_width=24)
    for unit, row in zip(space.walk.units, record["units"], strict=True):
        share = row["low_rank_share"]
        table.add_row(
            unit.name,
            str(unit.channels),
            *([_coupling(unit)] if coupling else []),
            f"{row['removable_share']:.1%}" if unit.free else "-",
            "-" if share is None else f"{share:.0%}",
            unit.protected or ("" if unit.error is None else f"inexact by {unit.error:.1%}: {unit.inexact}"),
        )
    return table


def _table_of(texts: TextTable) -> Table:
    """A granularity's table as a rich table."""
    table = plain_table(texts.words)
    for number, heading in enumerate(texts.headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=number == 0)
    for row in texts.rows:
        table.add_row(*row)
    return table


def _coupling(unit: Unit) -> str:
    """The other modules that write the unit's channels, and the modules that read them."""
    writers = dict.fromkeys(member.module for member in unit.members if member.side == "out")
    readers = dict.fromkeys(member.module for member in unit.members if member.side == "in")
    return f"{_listed(list(writers)[1:])} -> {_listed(list(readers))}"


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _ranks_table(space: SearchSpace, histograms: bool = True) -> Table:
    assert space.report is not None
    report = space.report
    table = plain_table(
        f"feature-map ranks; a map is low-rank below {report.rank_threshold:.0%} of full rank, "
        f"a layer sensitive above {report.layer_threshold:.0%} low-rank maps"
    )
    for heading in ("layer", "map", "low-rank\nmaps", "mean\nrank", *(["histogram 0 to 1"] if histograms else []), ""):
        table.add_column(heading, justify="left" if heading in ("layer", "") else "right", no_wrap=True)
    for evidence in report.layers:
        sensitive = "sensitive" if evidence.low_rank_share > report.layer_threshold else ""
        table.add_row(
            evidence.layer,
            f"{evidence.height} x {evidence.width}",
            f"{evidence.low_rank_share:.0%}",
            f"{evidence.mean_rank:.2f}",
            *([_bars(evidence)] if histograms else []),
            sensitive,
        )
    return table


def _bars(evidence: LayerEvidence) -> str:
    counts = np.array(evidence.histogram, dtype=float)
    levels = np.ceil(counts / max(1.0, counts.max()) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[level] for level in levels)
