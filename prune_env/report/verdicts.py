"""What a result means, in sentences: against the dense network, and against the plans of other searches."""

from collections.abc import Mapping

from prune_env.runs.summaries import RowRecord, Summary


def against_dense(row: RowRecord, dense: RowRecord, quality: str) -> str:
    """What a pruned network lost and gained against the dense one, in a sentence.

    Args:
        row: The pruned network.
        dense: The dense network, timed in turn with the pruned one.
        quality: The task's name for its quality.
    """
    ours, theirs, where = row.reward_quality, dense.reward_quality, "reward set"
    if row.test_quality is not None and dense.test_quality is not None:
        ours, theirs, where = row.test_quality, dense.test_quality, "test set"
    change = f"{100 * abs(ours - theirs):.2f} points {'less' if ours < theirs else 'more'} than"
    return (
        f"{row.name}: {quality} {ours:.2%} on the {where}, {change if ours != theirs else 'as much as'} the dense "
        f"network's {theirs:.2%}, with {row.macs / dense.macs:.1%} of its MACs and {row.params / dense.params:.1%} of "
        f"its params{_speed(row, dense)}."
    )


def _speed(row: RowRecord, dense: RowRecord) -> str:
    """The measured speed-up; none where the quartile ranges of the timings overlap, and empty without timings."""
    if row.latency_ms is None or dense.latency_ms is None:
        return ""
    ours, theirs = row.latency_ms, dense.latency_ms
    if ours.q3 < theirs.q1:
        return f", {theirs.median / ours.median:.2f} times as fast"
    if theirs.q3 < ours.q1:
        return f", {ours.median / theirs.median:.2f} times slower"
    return ", no faster"


def verdicts(summary: Summary) -> list[tuple[str, bool]]:
    """Sentences that compare the search's plan with each other pruned plan, as `verdicts_on`."""
    return verdicts_on({row.name: row for row in summary.rows}, summary.search)


def verdicts_on(rows: Mapping[str, RowRecord], name: str) -> list[tuple[str, bool]]:
    """Sentences that compare one pruned network with each other one.

    Args:
        rows: The networks by name.
        name: The one to compare; if it is none of them, there are no sentences.

    Returns:
        Pairs of a sentence and whether this network is ahead.
    """
    best = rows.get(name)
    sentences = []
    for other in rows.values():
        if best is None or other.name in (name, "dense"):
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
