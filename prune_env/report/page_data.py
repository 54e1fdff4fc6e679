"""The tables of data behind the charts of a run's page."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

from prune_env.report.charts import COSTS, Row, Tables, pareto_front
from prune_env.report.reading import best_rewards_of
from prune_env.report.run_record import PlanTried, RunRecord
from prune_env.report.sharing import text_without_places

Item = TypeVar("Item")

MOST_NUMBERS = 120_000
"""Widths that a page holds at most, over all of its plans [our choice]: it keeps a page under 2 MB."""

MOST_PLANS = 1_000
"""Plans that a page holds at most [our choice]."""


def shown_trials(record: RunRecord) -> list[PlanTried]:
    """The trials that the page holds: all, or a selection of a long search.

    A selection has the uniform plan, the best, plans that were the best when they came, the Pareto fronts, and evenly
    spaced others.
    """
    most = min(MOST_PLANS, max(50, MOST_NUMBERS // max(1, len(record.problem.units))))
    if len(record.trials) <= most:
        return list(record.trials)
    best = _best_rewards(record)
    points = [plan_row(trial) for trial in record.trials]
    fronts = [point["number"] for cost in COSTS for point in pareto_front(points, cost)]
    rises = [number for number in range(1, len(best)) if best[number] > best[number - 1]]
    needed = {trial.number for trial in record.trials if trial.proposed_by == "uniform"}
    needed |= {*thinned(rises, most // 4), *thinned(fronts, most // 4)}
    needed |= set(thinned([trial.number for trial in record.trials], most - len(needed)))
    return [trial for trial in record.trials if trial.number in needed]


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """Evenly spaced items, ``most`` at most; the last is always among them."""
    step = max(1, -(-len(items) // max(1, most)))
    return list(items[::-1][::step])[::-1]


def plan_row(trial: PlanTried) -> Row:
    """One point of the fronts; latency in ms, and None for what is not known."""
    return {
        "number": trial.number,
        "by": trial.proposed_by,
        "search": trial.proposed_by not in ("probe", "uniform"),
        "reward": trial.reward,
        "quality": trial.quality if isfinite(trial.quality) else None,
        "macs": trial.macs,
        "params": trial.params,
        "latency": None if trial.latency is None else 1e3 * trial.latency,
        "big": False,
    }


def run_tables(record: RunRecord, shown: Sequence[PlanTried]) -> Tables:
    """All tables of a run's page."""
    plans = [plan_row(trial) for trial in shown]
    dense = _dense_row(record)
    fronts = fronts_of([*plans, *dense], record.search)
    best = record.best
    tables: Tables = {
        "units": unit_rows(record),
        "plans": [*plans, *dense],
        "fronts": fronts,
        "selected": [plan for plan in plans if best is not None and plan["number"] == best.number],
        "curves": [*_curve(record.search, _best_rewards(record)), *_rival_rows(record)],
        "uniform": [{"by": "uniform", "reward": t.reward} for t in record.trials if t.proposed_by == "uniform"][:1],
        "networks": [
            {"name": row.name, **row.latency_ms.model_dump()} for row in record.rows if row.latency_ms is not None
        ],
        "epochs": _epoch_rows(record),
    }
    own = [trial for trial in shown if trial.proposed_by == record.search]
    channels = [unit.channels for unit in record.free]
    ratios = [[width / all_ for width, all_ in zip(one.widths, channels, strict=True)] for one in own]
    histories = {"history": ([unit.name for unit in record.free], ratios)}
    for family, layers in families_of(own).items():
        histories[f"history_{family}"] = (layers, [list(trial.series[family].values()) for trial in own])
    for name, (rows, values) in histories.items():
        numbered = zip(own, values, strict=True)
        tables[name] = [{"number": trial.number, "values": [round(v, 3) for v in one]} for trial, one in numbered]
        tables[f"{name}_rows"] = [{"index": index, "row": row} for index, row in enumerate(rows)]
    return tables


def families_of(trials: Sequence[PlanTried]) -> Mapping[str, list[str]]:
    """The layers of each family of the granularity's own numbers; empty families are left out."""
    first = trials[0].series if trials else {}
    return {family: list(by_layer) for family, by_layer in first.items() if by_layer}


def picked_plans(record: RunRecord, shown: Sequence[PlanTried]) -> dict[str, Any]:
    """The data from which the page's script shows a plan and its difference to the best."""
    families = families_of(shown)
    best = record.best
    return {
        "quality": record.metric.name,
        "best": None if best is None else best.number,
        "names": [unit.name for unit in record.free] + [f"{row}: {f}" for f, rows in families.items() for row in rows],
        "channels": [unit.channels for unit in record.free] + [None for rows in families.values() for _ in rows],
        "widths": {
            str(trial.number): [*trial.widths, *(trial.series[f][row] for f, rows in families.items() for row in rows)]
            for trial in shown
        },
    }


def unit_rows(record: RunRecord) -> list[Row]:
    """The best plan by unit, in forward order, with what is known about each unit."""
    if record.plan is None:
        return []
    saves = {unit.name: unit.saves for unit in record.problem.units}
    evidence = {} if record.sensitivity is None else {one.unit: one for one in record.sensitivity.layers}
    rises, uniform = loss_rises(record), record.uniform
    rows = []
    for unit in record.plan.units:
        free = unit.protected is None
        even = None if uniform is None or not free else uniform.get(unit.name, unit.channels)
        rows.append(
            {
                "unit": unit.name,
                "channels": unit.channels,
                "kept": len(unit.kept),
                "ratio": len(unit.kept) / unit.channels,
                "state": "kept" if free else "protected",
                "uniform_kept": even,
                "uniform": None if even is None else even / unit.channels,
                "saves_macs": saves.get(unit.name, {}).get("macs"),
                "saves_params": saves.get(unit.name, {}).get("params"),
                "loss_rise": rises.get(unit.name),
                "low_rank": evidence[unit.name].low_rank_share if unit.name in evidence else None,
                "protected": text_without_places(unit.protected or "no"),
            }
        )
    return rows


def loss_rises(record: RunRecord) -> dict[str, float]:
    """Rise of the loss when a free unit alone is cut, from the probes; empty if they or the dense loss are missing."""
    probes = [trial for trial in record.trials if trial.proposed_by == "probe"]
    dense = record.problem.dense.loss
    if dense is None or len(probes) != len(record.free):
        return {}
    return {unit.name: probe.loss - dense for unit, probe in zip(record.free, probes, strict=True)}


def fronts_of(plans: Iterable[Row], by: str) -> list[Row]:
    """The points of the Pareto front for each cost, under the name ``by``."""
    points = list(plans)
    return [
        {**point, "by": by, "cost": cost, "front": by, "of": point["by"]}
        for cost in COSTS
        for point in pareto_front(points, cost)
    ]


def _dense_row(record: RunRecord) -> list[Row]:
    quality, latency = record.dense_quality, record.problem.dense.latency
    if quality is None:
        return []
    point = {"number": None, "by": "dense", "search": False, "reward": None, "quality": quality, "big": True}
    return [{**point, "macs": 1.0, "params": 1.0, "latency": None if latency is None else 1e3 * latency}]


def _best_rewards(record: RunRecord) -> list[float]:
    return best_rewards_of((trial.proposed_by, trial.reward) for trial in record.trials)


def _curve(by: str, best: Sequence[float]) -> list[Row]:
    """A curve's corners: where it rises, and its end."""
    corners = [number for number in range(1, len(best)) if best[number] != best[number - 1]]
    numbers = sorted({0, *thinned(corners, MOST_PLANS), len(best) - 1}) if best else []
    return [{"by": by, "number": number, "best": best[number]} for number in numbers]


def _rival_rows(record: RunRecord) -> list[Row]:
    return [row for name, best in record.rivals.items() for row in _curve(name, best)]


def _epoch_rows(record: RunRecord) -> list[Row]:
    trainings = [*record.trainings, *([record.sparsified] if record.sparsified else [])]
    return [
        {
            "training": training.name,
            "epoch": epoch.number,
            "loss": epoch.loss,
            "quality": epoch.quality,
            "learning_rate": epoch.learning_rate,
        }
        for training in trainings
        for epoch in training.epochs
    ]
