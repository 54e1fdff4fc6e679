"""The table of a comparison of criteria."""

from rich.box import SIMPLE
from rich.table import Table

from prune_env.runs.criterion_comparison import MEASURES, CriterionComparison
from prune_env.runs.intervals import Interval

WORDS = {
    "cut": "right after the cut",
    "recalibrated": "recalibrated",
    "repaired": "least squares",
    "tuned": "fine-tuned",
}
"""Column headings of the measures."""


def render_criteria(comparison: CriterionComparison) -> Table:
    """The table of criteria, the best quality after recalibration first."""
    record = comparison.as_record()
    metric = "MACs" if comparison.metric == "macs" else comparison.metric
    title = (
        f"{comparison.model} ({record['dense']:.2%}), uniform widths that take {comparison.spent:.1%} of the {metric} "
        f"where {comparison.keep:.0%} are allowed: {comparison.quality} on the reward set, in %"
    )
    table = Table(box=SIMPLE, title=title, title_justify="left")
    table.add_column("criterion")
    for words in (*(WORDS[key] for key in MEASURES), "seconds to score"):
        table.add_column(words, justify="right")
    for name in sorted(record["criteria"], key=lambda name: -record["criteria"][name]["recalibrated"]):
        intervals = (str(Interval.of([getattr(row, key) for row in comparison.records[name]])) for key in MEASURES)
        table.add_row(name.rpartition(":")[2], *intervals, f"{record['criteria'][name]['seconds']:.1f}")
    return table
