"""The table of a comparison of criteria."""

from rich.table import Table

from prune_env.report.fitting import FirstThatFits, plain_table
from prune_env.runs.criterion_comparison import MEASURES, CriterionComparison
from prune_env.runs.intervals import Interval

WORDS = {
    "cut": "right after\nthe cut",
    "recalibrated": "recalibrated",
    "repaired": "least\nsquares",
    "tuned": "fine-tuned",
}
"""Column headings of the measures."""


def render_criteria(comparison: CriterionComparison) -> FirstThatFits:
    """The table of criteria, the best quality after recalibration first; without intervals where room is short."""
    return FirstThatFits(_table(comparison), _table(comparison, intervals=False))


def _table(comparison: CriterionComparison, intervals: bool = True) -> Table:
    record = comparison.as_record()
    metric = "MACs" if comparison.metric == "macs" else comparison.metric
    title = (
        f"{comparison.model} ({record['dense']:.2%}), uniform widths that take {comparison.spent:.1%} of the {metric} "
        f"where {comparison.keep:.0%} are allowed: {comparison.quality} on the reward set, in %"
    )
    table = plain_table(title)
    table.add_column("criterion", no_wrap=True)
    for words in (*(WORDS[key] for key in MEASURES), "seconds\nto score"):
        table.add_column(words, justify="right", no_wrap=True)
    for name in sorted(record["criteria"], key=lambda name: -record["criteria"][name]["recalibrated"]):
        found = [Interval.of([getattr(row, key) for row in comparison.records[name]]) for key in MEASURES]
        qualities = (str(one) if intervals else f"{100 * one.mean:.1f}" for one in found)
        table.add_row(name.rpartition(":")[2], *qualities, f"{record['criteria'][name]['seconds']:.1f}")
    return table
