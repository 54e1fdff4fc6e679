"""The table of a reward's fidelity."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from prune_env.report.fitting import plain_table


def render_fidelity(record: Mapping[str, Any], quality: str) -> Table:
    """The table of a `prune_env.runs.fidelity.measure_fidelity` result.

    Args:
        record: The result: the correlation and the mean qualities.
        quality: The task's name for its quality.
    """
    title = f"{record['model']}: {record['plans']} random plans at the budget, evaluated and then fine-tuned"
    table = plain_table(title)
    table.show_header = False
    table.add_column("what")
    table.add_column("value", justify="right")
    correlation = "undefined: all rewards or all qualities are equal"
    if record["spearman"] is not None:
        correlation = f"{record['spearman']:.3f} ({record['ci_low']:.3f} to {record['ci_high']:.3f})"
    table.add_row(f"rank correlation of reward and {quality} after fine-tuning (95 % interval)", correlation)
    for key, words in (
        (quality, f"mean {quality} on the reward set right after the cut, recalibrated"),
        ("tuned", f"mean {quality} on the test set after fine-tuning"),
        ("best_by_reward_tuned", "the plan with the best reward, fine-tuned"),
        ("best_tuned", "the best plan fine-tuned"),
    ):
        table.add_row(words, f"{record[key]:.2%}")
    return table
