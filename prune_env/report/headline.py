"""What a run came to in a few words: the numbers against the dense network, and sentences about the rivals."""

from prune_env.report.file_records import RowRecord, Summary
from prune_env.report.html import Figure
from prune_env.report.run_record import RunRecord


def headline(record: RunRecord) -> str:
    """One line: model, budget and qualities, on the test set if all rows have a test quality."""
    tested = all(row.test_quality is not None for row in record.rows)
    parts = [f"{row.name} {row.test_quality if tested else row.reward_quality:.1%}" for row in record.rows]
    return f"{record.title} ({'test' if tested else 'reward'} set: {', '.join(parts)})" if parts else record.title


def figures(record: RunRecord) -> list[Figure]:
    """The best plan against the dense network: quality, costs and latency; fine-tuned quality where there is one."""
    dense, cut = record.row("dense"), record.row(record.search)
    if dense is None or cut is None:
        return _figures_so_far(record)
    tuned = next((training.tuned for training in record.trainings if training.tuned is not None), None)
    name = record.metric.name
    shown = [_quality(name, cut, dense, "right after the cut")]
    if tuned is not None:
        shown.insert(0, _quality(name, tuned, dense, "fine-tuned"))
    for title, ours, theirs in (("MACs", cut.macs, dense.macs), ("params", cut.params, dense.params)):
        shown.append(Figure(title, f"{ours / theirs:.1%}", f"{short(ours)} of {short(theirs)}"))
    if cut.latency_ms is not None and dense.latency_ms is not None:
        time, whole = cut.latency_ms.median, dense.latency_ms.median
        shown.append(Figure("latency", f"{time / whole:.0%}", f"{time:.2f} of {whole:.2f} ms a batch"))
    return shown


def _figures_so_far(record: RunRecord) -> list[Figure]:
    """The best plan while the search runs."""
    best, name = record.best, f"{record.metric.name}, reward set"
    if best is None:
        return []
    change = "" if record.dense_quality is None else f"{_points(best.quality - record.dense_quality)} against dense"
    return [
        Figure(name, f"{best.quality:.2%}", change),
        Figure("MACs", f"{best.macs:.1%}", "of the dense network's"),
        Figure("params", f"{best.params:.1%}", "of the dense network's"),
    ]


def _quality(title: str, row: RowRecord, dense: RowRecord, state: str) -> Figure:
    if row.test_quality is not None and dense.test_quality is not None:
        where, ours, theirs = "test set", row.test_quality, dense.test_quality
    else:
        where, ours, theirs = "reward set", row.reward_quality, dense.reward_quality
    return Figure(f"{title}, {state}", f"{ours:.2%}", f"{_points(ours - theirs)} against dense, {where}")


def _points(change: float) -> str:
    return f"{100 * change:+.2f} points".replace("-", "\N{MINUS SIGN}")


def short(number: int) -> str:
    """A count with three digits and a unit."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


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


def effort(record: RunRecord) -> str:
    """What the search spent, in a sentence or two."""
    summary, count = record.summary, len(record.trials)
    if summary is None and not record.trials:
        return "The run holds a plan that no search of its own found."
    if summary is None:
        planned = record.config.search.evaluations
        return (
            f"The search is running, or was interrupted: {max(0, count - 1):,} of {planned:,} evaluations of "
            f"{record.search}. Reload this page for its latest state."
        )
    threads = f"{summary.threads} thread{'s' if summary.threads != 1 else ''}"
    return (
        f"{summary.evaluations:,} plans evaluated, {summary.episodes:,} of them proposed by {summary.search}, in "
        f"{summary.seconds:,.0f} s ({summary.seconds_per_evaluation:.2f} s an evaluation) on {summary.device} with "
        f"{threads}.{_sparsified(summary)}"
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
