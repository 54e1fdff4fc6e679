"""The pages of several runs: a comparison of searches, and runs side by side, for example one for each budget."""

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from prune_env.common.errors import RunError
from prune_env.common.files import atomic_write
from prune_env.config.trust import NOTHING, Trust
from prune_env.report import charts, html
from prune_env.report.page_data import fronts_of, plan_row
from prune_env.report.reading import read_run
from prune_env.report.run_record import RunRecord
from prune_env.runs.intervals import Interval, bands
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.seed_results import best_so_far

MOST_POINTS = 300
"""Plans of each run that a page of several runs draws at most, besides its fronts [our choice]."""


def write_runs(runs: Sequence[RunDirectory], page: Path, trust: Trust = NOTHING) -> Path:
    """Writes a page that shows several runs side by side, with a Pareto front over the plans of all of them.

    Args:
        runs: Runs of one task, finished or not, of one network as a rule; two or more.
        page: The file to write; an earlier page is replaced.
        trust: The code that the settings of the runs may name.

    Raises:
        ConfigError: If the settings of a run name code that is not trusted.
        RunError: If the runs measure different qualities, or a file of a run is damaged.
        PlanError: If a plan is missing or damaged.
    """
    records = {label: read_run(run, trust) for label, run in _labelled(runs).items()}
    qualities = {label: record.metric.name for label, record in records.items()}
    if len(set(qualities.values())) > 1:
        given = ", ".join(f"{label}: {name}" for label, name in qualities.items())
        raise RunError(f"The runs measure different qualities ({given}). Give runs of one task.")
    models = list(dict.fromkeys(record.config.model.name for record in records.values()))
    places = {label: os.path.relpath(run.report, page.parent) for label, run in _labelled(runs).items()}
    text = html.render_page(
        "runs.html",
        [_fronts(records), html.PageSection("The runs", "", _runs_table(records, places))],
        _tables(records),
        {"widths": {}, "best": None},
        title=f"{' and '.join(models)}: {len(records)} runs",
        words="Quality against cost of every plan tried. The lines are the Pareto fronts of each run and of all runs.",
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(page, text.encode())
    return page


def write_comparison_page(folder: Path, trust: Trust = NOTHING) -> Path:
    """Writes ``compare.html`` into the folder of a comparison of searches, from its runs so far.

    Args:
        folder: The folder of the runs, FOLDER/seed-SEED/SEARCH.
        trust: The code that the settings of the runs may name.

    Raises:
        ConfigError: If the settings of a run name code that is not trusted.
        RunError: If no run has started, or a file of a run is damaged.
    """
    started = sorted(file.parent for file in folder.glob("seed-*/[!.]*/evaluations.jsonl"))
    if not started:
        raise RunError(
            f"{str(folder)!r} holds no run of a comparison that has tried a plan. Let it run, and try again."
        )
    records = {run.relative_to(folder).as_posix(): read_run(RunDirectory(run), trust) for run in started}
    finished = {label: record for label, record in records.items() if record.summary is not None}
    first = next(iter(records.values()))
    by_search = _by_search(finished)
    curves = _curves(folder, by_search, first)
    floor = charts.lower_end([float(end) for band in curves.values() for end in band.ravel()])
    drawn = [charts.comparison(list(curves), first.metric.name, floor)] if curves else []
    places = {label: f"{label}/report.html" for label in records}
    seeds = len({label.split("/")[0] for label in records})
    text = html.render_page(
        "runs.html",
        [
            html.PageSection("The searches", "", _searches_table(by_search) if by_search else None, drawn),
            _fronts(records),
            html.PageSection("The runs", "", _runs_table(records, places)),
        ],
        {**_tables(records, by_search=True), "bands": _band_rows(curves)},
        {"widths": {}, "best": None},
        title=f"{first.title}: {len({record.search for record in records.values()})} searches",
        words=f"{len(finished)} of {len(records)} runs that have started are finished, with {seeds} "
        f"seed{'s' if seeds != 1 else ''}. Reload this page for the latest state.",
    )
    atomic_write(folder / "compare.html", text.encode())
    return folder / "compare.html"


def _labelled(runs: Sequence[RunDirectory]) -> dict[str, RunDirectory]:
    """The runs by the part of their paths in which they differ."""
    roots = [run.root.absolute() for run in runs]
    common = Path(os.path.commonpath(roots)) if len(set(roots)) > 1 else roots[0].parent
    return {root.relative_to(common).as_posix(): run for root, run in zip(roots, runs, strict=True)}


def _by_search(records: Mapping[str, RunRecord]) -> dict[str, list[RunRecord]]:
    ordered = sorted(records.values(), key=lambda record: record.search)
    return {name: list(own) for name, own in groupby(ordered, key=lambda record: record.search)}


def _curves(
    folder: Path, by_search: Mapping[str, Sequence[RunRecord]], first: RunRecord
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Mean and interval of the best quality so far of each search, [3, evaluations]."""
    found = {}
    for name, records in by_search.items():
        runs = [RunDirectory(folder / f"seed-{record.config.seed}" / name) for record in records]
        count = first.config.search.evaluations
        curves = np.stack([best_so_far(run, name, count, first.metric.name)[0] for run in runs])
        found[name] = np.stack([curves.mean(axis=0), *bands(curves)])
    return dict(sorted(found.items(), key=lambda item: -item[1][0, -1]))


def _band_rows(curves: Mapping[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]) -> list[charts.Row]:
    return [
        {"by": name, "number": number, "mean": float(mean), "low": float(low), "high": float(high)}
        for name, band in curves.items()
        for number, (mean, low, high) in enumerate(band.T, start=1)
    ]


def _searches_table(by_search: Mapping[str, Sequence[RunRecord]]) -> html.HtmlTable:
    rows: list[list[html.Cell]] = []
    for name, records in by_search.items():
        measured = [row for record in records if (row := record.row(name)) is not None]
        tests = [row.test_quality for row in measured if row.test_quality is not None]
        rewards = Interval.of([row.reward_quality for row in measured])
        test = Interval.of(tests) if tests else None
        seconds = float(np.mean([record.summary.seconds for record in records if record.summary is not None]))
        rows.append(
            [
                name,
                html.Number(str(rewards), rewards.mean),
                html.Number(str(test), test.mean) if test else html.Number.of(None, ""),
                str(len(records)),
                html.Number.of(seconds, ",.0f"),
            ]
        )
    rows.sort(key=lambda row: -row[1].value if isinstance(row[1], html.Number) else 0.0)
    headings = ["search", "reward set, best plan (%)", "test set (%)", "seeds", "seconds"]
    caption = "The searches: mean over the seeds and its 95 % interval"
    return html.HtmlTable(headings, rows, right=range(1, 5), sortable=True, caption=caption)


def _runs_table(records: Mapping[str, RunRecord], places: Mapping[str, str]) -> html.HtmlTable:
    rows: list[list[html.Cell]] = []
    for label, record in records.items():
        row, best = record.row(record.search), record.best
        tuned = [training.tuned for training in record.trainings if training.tuned is not None]
        time = None if row is None or row.latency_ms is None else row.latency_ms.median
        rows.append(
            [
                html.Link(label, places[label]),
                record.budget,
                record.search,
                f"{max(0, len(record.trials) - 1):,} of {record.config.search.evaluations:,}",
                html.Number.of(None if best is None else best.quality, ".2%"),
                html.Number.of(None if row is None else row.test_quality, ".2%"),
                html.Number.of(tuned[0].test_quality if tuned else None, ".2%"),
                html.Number.of(None if best is None else best.macs, ".1%"),
                html.Number.of(None if best is None else best.params, ".1%"),
                html.Number.of(time, ".2f"),
            ]
        )
    headings = ["run", "budget", "search", "evaluations", "best, reward set", "test set", "fine-tuned, test set"]
    headings += ["MACs", "params", "ms a batch"]
    used = [
        index
        for index in range(len(headings))
        if any(row[index] != html.Number.of(None, "") for row in rows) or index < 5
    ]
    rows = [[row[index] for index in used] for row in rows]
    return html.HtmlTable(
        [headings[index] for index in used], rows, right=range(3, len(used)), sortable=True, caption="The runs"
    )


def _fronts(records: Mapping[str, RunRecord]) -> html.PageSection:
    first = next(iter(records.values()))
    by_search = len({record.search for record in records.values()}) > 1
    names = list(dict.fromkeys(record.search if by_search else label for label, record in records.items()))
    own = [
        trial.quality for record in records.values() for trial in record.trials if trial.proposed_by == record.search
    ]
    titles = {"macs": "MACs that remain", "params": "params that remain", "latency": "ms a batch"}
    plans = _tables(records, by_search)["plans"]
    drawn = [
        charts.front(cost, title, first.metric.name, [*names, ALL, "dense"], charts.lower_end(own))
        for cost, title in titles.items()
        if any(plan[cost] is not None for plan in plans)
    ]
    words = "All plans of all runs; large points are the measured networks. Latency is that of the measured networks."
    return html.PageSection("Quality against cost", words, charts=drawn)


ALL = "all runs"
"""The name of the front over all runs."""


def _tables(records: Mapping[str, RunRecord], by_search: bool = False) -> charts.Tables:
    plans: list[charts.Row] = []
    fronts: list[charts.Row] = []
    for name, own in _grouped(records, by_search).items():
        points = [
            {**plan_row(trial), "by": name, "number": f"{label}: {trial.number}", "latency": None}
            for label, record in own
            for trial in record.trials
            if trial.proposed_by == record.search
        ]
        points += [point for _, record in own for point in _measured(record, name)]
        fronts += fronts_of(points, name)
        plans += [*points[:: max(1, len(points) // MOST_POINTS)], *(point for point in points if point["big"])]
    record = next(iter(records.values()))
    dense = _measured(record, "dense", "dense")
    everything = fronts_of([*({**front, "by": front["of"]} for front in fronts), *dense], ALL)
    return {"plans": [*plans, *dense], "fronts": [*fronts, *everything]}


def _grouped(records: Mapping[str, RunRecord], by_search: bool) -> dict[str, list[tuple[str, RunRecord]]]:
    groups: dict[str, list[tuple[str, RunRecord]]] = {}
    for label, record in records.items():
        groups.setdefault(record.search if by_search else label, []).append((label, record))
    return groups


def _measured(record: RunRecord, by: str, name: str | None = None) -> list[charts.Row]:
    """The measured network of a run as a point of the fronts; by default that of its best plan."""
    row, dense = record.row(name or record.search), record.row("dense")
    if row is None or dense is None:
        return []
    point = {"number": row.name, "by": by, "search": True, "reward": None, "quality": row.reward_quality, "big": True}
    time = row.latency_ms.median if row.latency_ms is not None else None
    return [{**point, "macs": row.macs / dense.macs, "params": row.params / dense.params, "latency": time}]
