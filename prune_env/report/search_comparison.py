"""The output of a comparison of searches: the table, the picture, and curves in TensorBoard."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from prune_env.common.event_log import EventLog
from prune_env.common.files import atomic_write, to_json
from prune_env.common.words import counted
from prune_env.config.sections import budget_in_words
from prune_env.report.comparison_figure import Band, comparison_picture
from prune_env.report.figures import figure_png
from prune_env.report.fitting import FirstThatFits, plain_table
from prune_env.runs.comparison import SearchComparison
from prune_env.runs.intervals import Interval, bands
from prune_env.runs.seed_results import SeedResult, interval_after, wins


def write_comparison(comparison: SearchComparison) -> None:
    """Writes ``compare.json``, ``compare.png`` and the curves in TensorBoard into the comparison's folder."""
    folder = comparison.folder
    curves = {name: np.stack([one.curve for one in outcomes]) for name, outcomes in comparison.outcomes.items()}
    drawn = {name: Band(curve.mean(axis=0), *bands(curve)) for name, curve in curves.items()}
    atomic_write(folder / "compare.json", to_json(comparison.as_record()).encode())
    picture = comparison_picture(title_of(comparison), drawn, comparison.quality)
    atomic_write(folder / "compare.png", figure_png(picture))
    # One log per search, so that TensorBoard overlays their curves.
    for name, band in drawn.items():
        with EventLog(folder / "tensorboard" / name, purge_step=0) as log:
            for number, values in enumerate(zip(*band, strict=True), start=1):
                tags = (f"compare/best_{comparison.quality}_{key}" for key in ("mean", "low", "high"))
                log.add_scalars(dict(zip(tags, values, strict=True)), number)


def title_of(comparison: SearchComparison) -> str:
    """The title, one line: model, budget and number of seeds."""
    settings, budget = comparison.settings, comparison.settings.budget
    seeds = counted(len(next(iter(comparison.outcomes.values()))), "seed")
    words = budget_in_words({budget.metric: budget.keep} | budget.also)
    return f"{settings.model.name} at {words}: mean of {seeds} and its 95 % interval"


def render(searches: Mapping[str, Sequence[SeedResult]], title: str) -> FirstThatFits:
    """The table of searches, the best first; qualities in per cent."""
    milestones = list(next(iter(searches.values()))[0].best)
    return FirstThatFits(_table(searches, title, milestones), _table(searches, title, milestones[-1:], costs=False))


def ranked(searches: Mapping[str, Sequence[SeedResult]]) -> list[str]:
    """The names of the searches, the best after all evaluations first."""
    last = max(next(iter(searches.values()))[0].best)
    return sorted(searches, key=lambda name: -interval_after(searches[name], last).mean)


def _table(
    searches: Mapping[str, Sequence[SeedResult]], title: str, milestones: Sequence[int], costs: bool = True
) -> Table:
    table = plain_table(title)
    headings = ["search", *(f"best after {count}" for count in milestones), *(["area"] if costs else [])]
    headings += ["test set", "seeds won", *(["seconds"] if costs else [])]
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for name in ranked(searches):
        outcomes = searches[name]
        table.add_row(
            name,
            *(str(interval_after(outcomes, count)) for count in milestones),
            *([f"{100 * np.mean([outcome.curve.mean() for outcome in outcomes]):.2f}"] if costs else []),
            str(Interval.of([outcome.test_quality for outcome in outcomes])),
            str(wins(searches, name)),
            *([f"{np.mean([outcome.seconds for outcome in outcomes]):.0f}"] if costs else []),
        )
    return table
