"""What a run came to in a few words: the numbers against the dense network, and what the search spent."""

from prune_env.common.words import counted
from prune_env.report.html import Figure
from prune_env.report.run_record import RunRecord
from prune_env.runs.summaries import RowRecord, Summary


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
    return (
        f"{counted(summary.evaluations, 'plan')} evaluated, {summary.episodes:,} of them proposed by "
        f"{summary.search}, in {summary.seconds:,.0f} s ({summary.seconds_per_evaluation:.2f} s an evaluation) on "
        f"{summary.device} with {counted(summary.threads, 'thread')}.{_sparsified(summary)}"
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
    epochs = counted(done.epochs, "epoch")
    return f" The dense network was trained sparsely first, {epochs} with {done.penalty}: {changes}."
