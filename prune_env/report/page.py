"""The report of a run: one self-contained page to explore, and the picture of the result."""

from collections.abc import Sequence
from pathlib import Path

from prune_env.config.trust import NOTHING, Trust
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.report import charts, html
from prune_env.report.figures import figure_png, result_picture
from prune_env.report.headline import effort, figures, headline
from prune_env.report.page_data import families_of, loss_rises, picked_plans, run_tables, shown_trials
from prune_env.report.reading import read_run
from prune_env.report.run_record import PlanTried, RunRecord
from prune_env.report.sharing import command_without_places, text_without_places, without_places
from prune_env.report.verdicts import verdicts
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.summaries import RowRecord


def write_report(run: RunDirectory, trust: Trust = NOTHING) -> Path:
    """Writes ``report.html`` into a run, finished or not; into a finished run also ``report.png``.

    Args:
        run: The run; an earlier report is replaced.
        trust: The code that the run's settings may name.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the search has not tried a plan yet, or one of the files is damaged.
        PlanError: If the plan is missing or damaged.
    """
    record = read_run(run, trust)
    if record.summary is not None and record.plan is not None:
        picture = result_picture(headline(record), record.plan, record.uniform, record.tried)
        run.write_bytes(run.root / "report.png", figure_png(picture))
    run.write_text(run.report, render_page(record))
    return run.report


def render_page(record: RunRecord) -> str:
    """The page's HTML: it holds its scripts and data, and fetches nothing."""
    shown = shown_trials(record)
    command = f"prune-env train --resume {record.name}" if record.summary is None else record.summary.command
    return html.render_page(
        "report.html",
        _sections(record, shown),
        run_tables(record, shown),
        picked_plans(record, shown),
        title=record.title,
        effort=effort(record),
        figures=figures(record),
        result=_result_table(record),
        verdicts=[] if record.summary is None else verdicts(record.summary),
        command=command_without_places(command),
        versions=html.HtmlTable(["package", "version"], [*record.versions.items()]),
        settings=without_places(record.settings),
    )


def _sections(record: RunRecord, shown: Sequence[PlanTried]) -> list[html.PageSection]:
    sections = [
        *_plan_section(record),
        *_outputs(record),
        _search_section(record),
        _tried_section(record, shown),
        *_history_section(record, shown),
        *_training_section(record),
        *_latency_section(record),
        *_own_sections(record),
        *([_evidence(record.sensitivity)] if record.sensitivity else []),
    ]
    return [section for section in sections if section.charts or section.table or section.pictures]


def _result_table(record: RunRecord) -> html.HtmlTable:
    dense, batch = record.row("dense"), record.summary.batch_size if record.summary is not None else 0
    rows = [_result_row(row, dense or record.rows[0]) for row in record.rows]
    latency = f"ms / {batch} images (quartiles)"
    headings = ["network", "reward set", "test set", "MACs / image", "params", latency]
    return html.HtmlTable(headings, rows, right=range(1, 6), chosen=record.search, caption="The measured networks")


def _result_row(row: RowRecord, dense: RowRecord) -> list[html.Cell]:
    time = row.latency_ms
    return [
        row.name,
        f"{row.reward_quality:.2%}",
        "not measured" if row.test_quality is None else f"{row.test_quality:.2%}",
        f"{row.macs:,} ({row.macs / dense.macs:.1%})",
        f"{row.params:,} ({row.params / dense.params:.1%})",
        "not measured" if time is None else f"{time.median:.2f} ({time.q1:.2f} to {time.q3:.2f})",
    ]


def _plan_section(record: RunRecord) -> list[html.PageSection]:
    if record.plan is None:
        return []
    rises, rows = loss_rises(record), list[list[html.Cell]]()
    saves = {unit.name: unit.saves for unit in record.problem.units}
    for unit in record.plan.units:
        uniform = "" if record.uniform is None else str(record.uniform.get(unit.name, unit.channels))
        ratio = len(unit.kept) / unit.channels
        counts = [str(unit.channels), str(len(unit.kept)), f"{ratio:.0%}"]
        saved = [html.Number.of(saves.get(unit.name, {}).get(metric), ".1%") for metric in ("macs", "params")]
        rise = html.Number.of(rises.get(unit.name), ".4f")
        reason = text_without_places(unit.protected or "")
        rows.append([unit.name, *counts, html.Bar(ratio), uniform, *saved, rise, reason])
    headings = ["unit", "channels", "kept", "keep ratio", "", "kept by uniform", "saves MACs", "saves params"]
    caption = "The units of the plan, with their savings and their sensitivity"
    table = html.HtmlTable(
        [*headings, "rise of the loss", "protected"], rows, right=(1, 2, 3, 5, 6, 7, 8), caption=caption
    )
    words = (
        "A unit saves the share that its cut to the least width takes away, if no other unit is cut. The rise of the "
        "loss is that of its probe, a plan that cuts this unit alone."
    )
    chart = charts.keep_ratios(record.uniform is not None, len(record.plan.units))
    return [html.PageSection("The plan", words, table, [chart], folded=True)]


def _search_section(record: RunRecord) -> html.PageSection:
    names = [record.search, *record.rivals]
    uniform = [trial.reward for trial in record.trials if trial.proposed_by == "uniform"]
    own = [trial.reward for trial in record.trials if trial.proposed_by == record.search]
    kinds = [*names, *(["uniform"] if uniform and "uniform" not in names else [])]
    last = [best[-1] for best in record.rivals.values() if best]
    chart = charts.rewards(kinds, charts.lower_end(own, [*uniform, *last]), bool(uniform))
    return html.PageSection("The search", "", charts=[chart] if own else [])


def _tried_section(record: RunRecord, shown: Sequence[PlanTried]) -> html.PageSection:
    name = record.metric.name
    rows: list[list[html.Cell]] = [
        [
            html.Pick(trial.number),
            trial.proposed_by,
            html.Number.of(trial.reward, ".4f"),
            html.Number.of(trial.quality, ".2%"),
            html.Number.of(trial.loss, ".4f"),
            html.Number.of(trial.macs, ".1%"),
            html.Number.of(trial.params, ".1%"),
            *([html.Number.of(1e3 * trial.latency, ".3f")] if trial.latency is not None else []),
            html.Number.of(trial.seconds, ".2f"),
        ]
        for trial in shown
    ]
    timed = any(trial.latency is not None for trial in shown)
    headings = ["plan", "proposed by", "reward", name, "loss", "MACs", "params", *(["ms"] if timed else []), "seconds"]
    table = html.HtmlTable(headings, rows, right=range(2, len(headings)), sortable=True, caption="Every plan tried")
    every = f"{len(record.trials):,} plans were tried"
    if len(shown) < len(record.trials):
        every += f"; {len(shown):,} of them are here: the best, the fronts, and evenly spaced others"
    words = f"{every}. A click on a point, or on a number in the table, shows a plan and its difference to the best."
    return html.PageSection("Every plan tried", words, table if rows else None, _fronts(record, shown), plans=True)


def _fronts(record: RunRecord, shown: Sequence[PlanTried]) -> list[charts.Chart]:
    kinds = list(dict.fromkeys([record.search, *(trial.proposed_by for trial in shown)]))
    kinds += ["dense"] if record.dense_quality is not None else []
    own = [trial.quality for trial in shown if trial.proposed_by == record.search]
    floor = charts.lower_end(own, [trial.quality for trial in shown if trial.proposed_by == "uniform"])
    if floor is None and own:
        # Probes cut single units, and may be far worse than any plan of the search.
        floor = 0.98 * min(trial.quality for trial in shown if trial.proposed_by != "probe" and trial.complete)
    titles = {"macs": "MACs that remain", "params": "params that remain"}
    if any(trial.latency is not None for trial in shown):
        titles["latency"] = "ms by the formula of latency"
    limits, name = record.limits, record.metric.name
    if not shown:
        return []
    return [
        charts.front(cost, title, name, kinds, floor, None if cost == "latency" else limits.get(cost), bool(own))
        for cost, title in titles.items()
    ]


def _history_section(record: RunRecord, shown: Sequence[PlanTried]) -> list[html.PageSection]:
    own = [trial for trial in shown if trial.proposed_by == record.search]
    if len(own) < 2:
        return []
    numbers = [trial.number for trial in own]
    caption = "Keep ratio of each free unit, by evaluation."
    drawn = [charts.heat_map("history", caption, len(record.free), numbers, (0.0, 1.0), ".0%")]
    for family, layers in families_of(own).items():
        values = [value for trial in own for value in trial.series[family].values()]
        whole = all(float(value).is_integer() for value in values)
        span = (min([*values, 1.0]), max([*values, 2.0])) if whole and max(values) > 1 else (0.0, 1.0)
        caption = f"{family.capitalize()} of each layer, by evaluation."
        fmt = "d" if whole and max(values) > 1 else ".0%"
        drawn.append(charts.heat_map(f"history_{family}", caption, len(layers), numbers, span, fmt))
    names = ["What the search decided", *(f"What the search decided: {family}" for family in families_of(own))]
    return [html.PageSection(name, "", charts=[chart]) for name, chart in zip(names, drawn, strict=True)]


def _training_section(record: RunRecord) -> list[html.PageSection]:
    trainings = [*record.trainings, *([record.sparsified] if record.sparsified else [])]
    trainings = [training for training in trainings if training.epochs]
    if not trainings:
        return []
    names = [training.name for training in trainings]
    words = " ".join(
        f"{training.name}: {len(training.epochs)} of {training.planned} epochs, "
        f"{sum(epoch.seconds for epoch in training.epochs):,.0f} s."
        for training in trainings
    )
    name = f"{record.metric.name}, reward set"
    last = max(len(training.epochs) for training in trainings)
    numbers = (("quality", name, ".1%"), ("loss", "loss", ".3f"))
    drawn = [charts.training(key, title, fmt, names, last) for key, title, fmt in numbers]
    return [html.PageSection("Training", words, charts=drawn)]


def _latency_section(record: RunRecord) -> list[html.PageSection]:
    timed = [row for row in record.rows if row.latency_ms is not None]
    return [html.PageSection("Latency", "", charts=[charts.latencies(len(timed))])] if timed else []


def _outputs(record: RunRecord) -> list[html.PageSection]:
    """What the networks say about a few images, if the task draws pictures."""
    if record.pictures is None or record.summary is None:
        return []
    names = ", ".join(row.name for row in record.summary.rows)
    picture = html.Picture(record.pictures, f"Images of the test set, chosen by the seed. From left to right: {names}.")
    return [html.PageSection("What the networks say", "", pictures=[picture])]


def _own_sections(record: RunRecord) -> list[html.PageSection]:
    """The granularity's own sections."""
    if record.summary is None or record.plan is None:
        return []
    return [
        html.PageSection(
            texts.title,
            texts.words,
            html.HtmlTable(texts.headings, texts.rows, right=range(1, len(texts.headings)), caption=texts.title),
        )
        for texts in record.granularity.tables(record.summary.batch_size, record.plan)
    ]


def _evidence(report: SensitivityReport) -> html.PageSection:
    rows: list[list[html.Cell]] = [
        [
            layer.layer,
            f"{layer.height} x {layer.width}",
            f"{layer.low_rank_share:.0%}",
            f"{layer.mean_rank:.2f}",
            html.Bins(layer.histogram),
            "sensitive" if layer.unit in report.sensitive else "",
        ]
        for layer in report.layers
    ]
    words = (
        f"A map is low-rank if rank / min(height, width) is below {report.rank_threshold:g}; a layer with more than "
        f"{report.layer_threshold:.0%} low-rank maps is sensitive, and its unit is protected. The histogram counts "
        "maps by that ratio, from 0 at the left to 1."
    )
    headings = ["layer", "map (pixels)", "low-rank maps", "mean rank", "ranks", "unit"]
    table = html.HtmlTable(headings, rows, right=(1, 2, 3), caption="Ranks of the feature maps by layer")
    return html.PageSection("Evidence for sensitive layers", words, table, folded=True)
