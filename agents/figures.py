"""Pictures of a search: what stays of each unit, how the reward rose, and what every plan tried was worth.

Drawn without pyplot, so that they neither need a screen nor touch the pictures of a notebook that imports this.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from agents.figure_style import (
    BLUE,
    GREY,
    INK,
    PALE,
    VERMILION,
    add_legend,
    add_title,
    labelled,
    looks_of,
    new_figure,
    plain_axes,
    short_name,
)
from prune_env.plan import PruningPlan

NOT_A_SEARCH = ("probe", "uniform", "dense")
"""Kinds of trials that no search proposed; they are no episodes."""


class Tried(NamedTuple):
    """One plan that was tried.

    Attributes:
        kind: Who proposed it: agent, uniform, probe, dense, or another search's name.
        reward: What it is worth.
        accuracy: On the reward set, in [0, 1].
        macs_share: Its MACs as a share of the dense network's, in (0, 1].
    """

    kind: str
    reward: float
    accuracy: float
    macs_share: float


def keep_ratio_bars(plan: PruningPlan, compare: Mapping[str, int] | None = None) -> Figure:
    """The keep ratio of each unit in forward order.

    Args:
        plan: Its free units are bars, its protected ones hatched.
        compare: Widths by unit name of the uniform plan, drawn as a line; units that are not named are dense.
    """
    figure = new_figure(3.8)
    _draw_keep_ratios(figure.subplots(), plan, compare)
    return figure


def keep_ratio_heat_map(history: npt.NDArray[np.floating], units: Sequence[str], first: int = 0) -> Figure:
    """The keep ratio of each unit over the episodes.

    Args:
        history: Keep ratios in [0, 1], [episodes, units], at least one of each.
        units: Names in forward order.
        first: Number of the first episode.
    """
    episodes, count = history.shape
    figure = new_figure(min(8.0, 1.7 + 0.13 * max(count, 10)))
    axes = figure.subplots()
    edges = (first - 0.5, first + episodes - 0.5, count - 0.5, -0.5)
    image = axes.imshow(
        history.T, aspect="auto", cmap="viridis", vmin=0.0, vmax=1.0, extent=edges, interpolation="nearest"
    )
    plain_axes(axes, "episode", "")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    shown = labelled(count)
    axes.set_yticks(shown, [short_name(units[number]) for number in shown], parse_math=False)
    axes.tick_params(axis="y", labelsize=7.5)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30, format=PercentFormatter(1.0, decimals=0))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    add_title(axes, "Channels kept of each unit, by episode")
    return figure


def reward_curve(tried: Sequence[Tried]) -> Figure:
    """The reward of each episode and the best so far, for every search among the plans tried.

    Probes are left out; the uniform plan, where it was tried, is a horizontal line.
    """
    figure = new_figure(3.6)
    _draw_rewards(figure.subplots(), tried)
    return figure


def accuracy_against_macs(tried: Sequence[Tried], budget: float | None = None) -> Figure:
    """Accuracy against MACs of all plans tried.

    Args:
        tried: The plans.
        budget: The share of the dense MACs that may remain; None where it is not MACs that have a budget.
    """
    figure = new_figure(4.2)
    axes = figure.subplots()
    plain_axes(axes, "MACs that remain (% of the dense network's)", "accuracy on the reward set (%)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=PALE, linewidth=0.8)
    looks = looks_of(one.kind for one in tried)
    # Few points are drawn over many, or they would be lost.
    for kind in sorted(looks, key=lambda kind: -sum(one.kind == kind for one in tried)):
        colour, marker = looks[kind]
        points = np.array([(one.macs_share, one.accuracy) for one in tried if one.kind == kind])
        alone = len(points) == 1
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=({"*": 200.0}.get(marker, 64.0)) if alone else 26.0,
            color=colour,
            marker=marker,
            alpha=1.0 if alone else 0.55,
            linewidths=1.3 if marker == "x" else 0.0,
            label=kind,
            zorder=3,
        )
    if budget is not None:
        axes.axvline(budget, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label=f"budget {budget:.0%}", zorder=2)
    add_title(axes, "Every plan tried")
    add_legend(axes)
    return figure


def result_picture(title: str, plan: PruningPlan, uniform: Mapping[str, int] | None, tried: Sequence[Tried]) -> Figure:
    """The result in one picture: keep ratio per unit above, reward curve below.

    Args:
        title: One line: model, budget and accuracies.
        plan: The agent's best plan.
        uniform: Widths of the uniform plan by unit name.
        tried: Every plan tried.
    """
    figure = new_figure(6.8)
    above, below = figure.subplots(2, 1, height_ratios=(1.15, 1.0))
    _draw_keep_ratios(above, plan, uniform)
    _draw_rewards(below, tried)
    heading = figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    heading.set_parse_math(False)
    return figure


def figure_pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The drawn figure, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure_png(figure: Figure) -> bytes:
    """The drawn figure as the bytes of a PNG file."""
    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _draw_keep_ratios(axes: Axes, plan: PruningPlan, compare: Mapping[str, int] | None) -> None:
    plain_axes(axes, "unit, in forward order", "channels kept (%)")
    places = np.arange(len(plan.units))
    ratios = np.array([len(unit.kept) / unit.channels for unit in plan.units])
    free = np.array([unit.protected is None for unit in plan.units])
    axes.bar(places[free], 1.0, width=0.8, color=PALE, label="cut")
    axes.bar(places[free], ratios[free], width=0.8, color=BLUE, label="kept")
    if not free.all():
        hatched = {"facecolor": "#F6F8FA", "edgecolor": GREY, "hatch": "////", "linewidth": 0.0}
        axes.bar(places[~free], ratios[~free], width=0.8, label="protected", **hatched)
    if compare is not None:
        other = np.array([compare.get(unit.name, unit.channels) / unit.channels for unit in plan.units])
        edges = np.arange(len(plan.units) + 1) - 0.5
        axes.stairs(other, edges, baseline=None, color=VERMILION, linewidth=1.6, label="uniform")
    shown = labelled(len(plan.units))
    axes.set_xticks(shown, [short_name(plan.units[i].name) for i in shown], rotation=90, parse_math=False)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.7, len(plan.units) - 0.3)
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    add_title(axes, "Channels kept of each unit")
    add_legend(axes)


def _draw_rewards(axes: Axes, tried: Sequence[Tried]) -> None:
    plain_axes(axes, "episode", "reward")
    looks = looks_of(one.kind for one in tried)
    for kind in (kind for kind in looks if kind not in NOT_A_SEARCH):
        rewards = np.array([one.reward for one in tried if one.kind == kind])
        colour, marker = looks[kind]
        best = np.maximum.accumulate(rewards)
        axes.scatter(np.arange(len(rewards)), rewards, s=14, color=colour, marker=marker, alpha=0.35, linewidths=0.0)
        axes.plot(best, color=colour, linewidth=2.0, drawstyle="steps-post", label=f"{kind}, best so far")
    uniform = [one.reward for one in tried if one.kind == "uniform"]
    if uniform:
        axes.axhline(max(uniform), color=VERMILION, linewidth=1.6, linestyle=(0, (4, 3)), label="uniform plan")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    add_title(axes, "Reward of each episode")
    add_legend(axes)
