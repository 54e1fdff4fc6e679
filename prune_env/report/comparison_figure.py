"""The picture of a comparison: best quality so far over the evaluations of each search."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from prune_env.common.text import printable
from prune_env.report import figure_style as style

_LINES = {
    "ddpg": (style.BLUE, "-"),
    "cma": (style.GREEN, "-"),
    "cma_from_rules": (style.GREEN, ":"),
    "tpe": (style.PURPLE, "-"),
    "greedy": (style.ORANGE, "-"),
    "power": (style.SKY, "-"),
    "eigenvalue": (style.SKY, ":"),
    "random": (style.GREY, "-"),
    "uniform": (style.VERMILION, "--"),
    "td3": (style.INK, "-"),
    "sac": (style.ORANGE, ":"),
    "ppo": (style.PURPLE, ":"),
}


class Band(NamedTuple):
    """Quality of the best plan so far, [evaluations] each: the mean over seeds and its interval."""

    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def comparison_picture(title: str, searches: Mapping[str, Band], quality: str) -> Figure:
    """Draws best-so-far curves with their intervals.

    Args:
        title: The title, one line.
        searches: Curves by search.
        quality: The task's name for its quality.
    """
    figure = style.new_figure(4.6)
    axes = figure.subplots()
    style.plain_axes(axes, "evaluations, probes counted", f"best {quality} so far on the reward set (%)")
    axes.yaxis.set_major_formatter(style.percent())
    for name, band in sorted(searches.items(), key=lambda item: -item[1].mean[-1]):
        colour, line = _LINES.get(name, (style.INK, "-."))
        places = np.arange(1, len(band.mean) + 1)
        axes.fill_between(places, band.low, band.high, color=colour, alpha=0.12, linewidth=0.0)
        axes.plot(places, band.mean, color=colour, linewidth=2.0, linestyle=line, label=printable(name))
    # Clip the axis: one very bad first plan would squeeze all other curves.
    ends = [float(band.mean[-1]) for band in searches.values()]
    starts = [float(band.low.min()) for band in searches.values()]
    axes.set_ylim(bottom=max(min(starts), 2 * min(ends) - max(ends) - 0.05))
    style.add_title(axes, title)
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=style.INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    style.as_text(legend)
    return figure
