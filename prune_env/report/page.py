"""The report of a run: one self-contained page, and the picture of the result."""

from pathlib import Path

from prune_env.config.trust import NOTHING, Trust
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.report import html
from prune_env.report.figures import (
    figure_png,
    keep_ratio_bars,
    keep_ratio_heat_map,
    quality_against_macs,
    result_picture,
    reward_curve,
    series_heat_map,
)
from prune_env.report.run_record import RowRecord, RunRecord, Summary, read_run
from prune_env.runs.run_directory import RunDirectory


def write_report(run: RunDirectory, trust: Trust = NOTHING) -> Path:
    """Writes ``report.html`` and ``report.png``, the picture of the result, into a finished run.

    Args:
        run: The run; an earlier report is replaced.
        trust: The code that the run's settings may name.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the run is not finished, or one of its files is damaged.
        PlanError: If the plan is missing or damaged.
    """
    record = read_run(run, trust)
    picture = result_picture(_headline(record.summary), record.plan, record.uniform, record.tried)
    run.write_bytes(run.root / "report.png", figure_png(picture))
    run.write_text(run.report, render_page(record))
    return run.report


def render_page(record: RunRecord) -> str:
    """The page's HTML, with embedded pictures and without scripts or links."""
    summary = record.summary
    return html.render(
        title=summary.title,
        effort=f"{summary.evaluations:,} plans evaluated, {summary.episodes:,} of them proposed by {summary.search}, "
        f"in {summary.seconds:,.0f} s ({summary.seconds_per_evaluation:.2f} s an evaluation) on {summary.device} with "
        f"{summary.threads} thread{'s' if summary.threads != 1 else ''}.{_sparsified(summary)}",
        result=_result_table(summary),
        verdicts=verdicts(summary),
        pictures=_pictures(record),
        sections=[
            html.PageSection("The plan", "", _plan_table(record)),
            *_own_sections(record),
            *([_evidence(record.sensitivity)] if record.sensitivity else []),
        ],
        command=summary.command,
        versions=html.HtmlTable(["package", "version"], [*record.versions.items()]),
        settings=record.settings,
    )


def _sparsified(summary: Summary) -> str:
    """A sentence on the sparse training before the search; empty without one."""
    done = summary.sparsify
    if done is None:
        return ""
    changes = ", ".join(
        f"{name.replace('_', ' ')} {before:.2%} before and {done.after[name]:.2%} after"
        for name, before in done.before.items()
        if name in done.after
    )
    epochs = f"{done.epochs} epoch{'s' if done.epochs != 1 else ''}"
    return f" The dense network was trained sparsely first, {epochs} with {done.penalty}: {changes}."


def verdicts(summary: Summary) -> list[tuple[str, bool]]:
    """Sentences that compare the search's plan with each other pruned plan.

    Returns:
        Pairs of a sentence and whether the search is ahead.
    """
    best = summary.row(summary.search)
    sentences = []
    for other in summary.rows:
        if best is None or other.name in (summary.search, "dense"):
            continue
        sentences.append(_compare(best, other, best.reward_quality, other.reward_quality, "reward set"))
        if best.test_quality is not None and other.test_quality is not None:
            sentences.append(_compare(best, other, best.test_quality, other.test_quality, "test set"))
        sentences.extend(_compare_speed(best, other))
    return sentences


def _compare(best: RowRecord, other: RowRecord, ours: float, theirs: float, where: str) -> tuple[str, bool]:
    points = f"{100 * abs(ours - theirs):.2f} points"
    if ours > theirs:
        return f"On the {where} {best.name} beats {other.name} by {points}: {ours:.2%} against {theirs:.2%}.", True
    if ours == theirs:
        words = f"On the {where} {other.name} is as good as {best.name}: {theirs:.2%}. The search gained nothing there."
        return words, False
    return f"On the {where} {other.name} beats {best.name} by {points}: {theirs:.2%} against {ours:.2%}.", False


def _compare_speed(best: RowRecord, other: RowRecord) -> list[tuple[str, bool]]:
    """A sentence if the quartile ranges of the timings do not overlap."""
    if best.latency_ms is None or other.latency_ms is None:
        return []
    ours, theirs = best.latency_ms, other.latency_ms
    times = f"{ours.median:.2f} ms a batch against {theirs.median:.2f} ms."
    if ours.q3 < theirs.q1:
        return [(f"{best.name}'s network is faster than {other.name}'s: {times}", True)]
    if theirs.q3 < ours.q1:
        return [(f"{best.name}'s network is slower than {other.name}'s: {times}", False)]
    return []


def _headline(summary: Summary) -> str:
    """One line: model, budget and qualities, on the test set if all rows have a test quality."""
    tested = all(row.test_quality is not None for row in summary.rows)
    parts = [f"{row.name} {row.test_quality if tested else row.reward_quality:.1%}" for row in summary.rows]
    return f"{summary.title} ({'test' if tested else 'reward'} set: {', '.join(parts)})"


def _result_table(summary: Summary) -> html.HtmlTable:
    dense = summary.row("dense") or summary.rows[0]
    rows = []
    for row in summary.rows:
        time = row.latency_ms
        rows.append(
            [
                row.name,
                f"{row.reward_quality:.2%}",
                "not measured" if row.test_quality is None else f"{row.test_quality:.2%}",
                f"{row.macs:,} ({row.macs / dense.macs:.1%})",
                f"{row.params:,} ({row.params / dense.params:.1%})",
                "not measured" if time is None else f"{time.median:.2f} ({time.q1:.2f} to {time.q3:.2f})",
            ]
        )
    latency = f"ms / {summary.batch_size} images (quartiles)"
    headings = ["", "reward set", "test set", "MACs / image", "params", latency]
    return html.HtmlTable(headings, rows, right=range(1, 6), chosen=summary.search)


def _pictures(record: RunRecord) -> list[html.Picture]:
    budget = record.summary.budget
    keep = budget.keep if budget.metric == "macs" else None
    scatter = quality_against_macs(record.tried, record.quality, keep)
    figures = [
        (keep_ratio_bars(record.plan, record.uniform), "Keep ratio of each unit in the best plan."),
        (reward_curve(record.tried), "The reward of each episode, and the best so far."),
        (scatter, f"{record.quality.capitalize()} on the reward set against MACs, for every plan tried."),
    ]
    if record.history.size:
        heat_map = keep_ratio_heat_map(record.history, record.free)
        figures.insert(2, (heat_map, "Keep ratio of each free unit, by episode."))
    for family in record.series[0] if record.series else ():
        heat_map = series_heat_map(family, [drawn[family] for drawn in record.series])
        figures.insert(3, (heat_map, f"Decisions of the search about {family}, by episode."))
    drawn = [html.Picture(figure_png(figure), caption) for figure, caption in figures]
    return [*_outputs(record), *drawn]


def _outputs(record: RunRecord) -> list[html.Picture]:
    """What the networks say about a few images, if the task draws pictures."""
    if record.pictures is None:
        return []
    names = ", ".join(row.name for row in record.summary.rows)
    return [html.Picture(record.pictures, f"Images of the test set, chosen by the seed. From left to right: {names}.")]


def _plan_table(record: RunRecord) -> html.HtmlTable:
    rows: list[list[html.Cell]] = []
    for unit in record.plan.units:
        uniform = "" if record.uniform is None else str(record.uniform.get(unit.name, unit.channels))
        ratio = len(unit.kept) / unit.channels
        counts = [str(unit.channels), str(len(unit.kept)), f"{ratio:.0%}"]
        rows.append([unit.name, *counts, html.Bar(ratio), uniform, unit.protected or ""])
    headings = ["unit", "channels", "kept", "keep ratio", "", "kept by uniform", "protected"]
    return html.HtmlTable(headings, rows, right=(1, 2, 3, 5))


def _own_sections(record: RunRecord) -> list[html.PageSection]:
    """The granularity's own sections."""
    return [
        html.PageSection(
            texts.title,
            texts.words,
            html.HtmlTable(texts.headings, texts.rows, right=range(1, len(texts.headings))),
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
    return html.PageSection("Evidence for sensitive layers", words, html.HtmlTable(headings, rows, right=(1, 2, 3)))
