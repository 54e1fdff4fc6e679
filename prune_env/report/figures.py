"""Pictures of a search: keep ratios, rewards over the episodes, and quality against MACs of all plans.

The pictures are drawn without pyplot, so they need no display and do not change the figures of a notebook.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prune_env.common.text import printable
from prune_env.plan import PruningPlan
from prune_env.report import figure_style as style
from prune_env.report.figure_style import figure_png as figure_png

NOT_A_SEARCH = ("probe", "uniform", "dense")
"""Kinds of trials outside episodes: no search proposed them."""


class Tried(NamedTuple):
    """One tried plan.

    Attributes:
        proposed_by: Who proposed the plan: probe, uniform, dense, or a search's name.
        reward: The reward.
        quality: Quality on the reward set, in [0, 1]; nan (not drawn) if only a part of the set was evaluated.
        macs_share: MACs as a share of the dense network's, in (0, 1].
    """

    proposed_by: str
    reward: float
    quality: float
    macs_share: float


def keep_ratio_bars(plan: PruningPlan, compare: Mapping[str, int] | None = None) -> Figure:
    """Draws the keep ratio of each unit in forward order.

    Args:
        plan: The plan; free units are bars, protected units are hatched.
        compare: Widths of the uniform plan by unit name, drawn as a line; missing units are dense.
    """
    figure = style.new_figure(3.8)
    _draw_keep_ratios(figure.subplots(), plan, compare)
    return figure


def keep_ratio_heat_map(history: npt.NDArray[np.floating], units: Sequence[str], first: int = 0) -> Figure:
    """Draws the keep ratio of each unit over the evaluations.

    Args:
        history: Keep ratios in [0, 1], [episodes, units], at least one episode and one unit.
        units: Names in forward order.
        first: Number of the first episode's evaluation.
    """
    return _heat_map(history, units, first, (0.0, 1.0), style.percent(), "Channels kept of each unit, by evaluation")


def series_heat_map(family: str, history: Sequence[Mapping[str, float]], first: int = 0) -> Figure:
    """Draws a granularity's own series over the episodes.

    Args:
        family: The meaning of the numbers, for example ``groups``.
        history: Whole numbers by layer for each episode, with the same layers; at least one episode and one layer.
        first: Number of the first episode's evaluation.
    """
    values = np.array([list(by_layer.values()) for by_layer in history], dtype=np.float64)
    span = (float(values.min(initial=1.0)), max(2.0, float(values.max())))
    title = f"{family.capitalize()} of each layer, by evaluation"
    figure = _heat_map(values, list(history[0]), first, span, "%d", title)
    figure.axes[-1].yaxis.set_major_locator(style.whole_numbers())
    return figure


def _heat_map(
    history: npt.NDArray[np.floating],
    units: Sequence[str],
    first: int,
    span: tuple[float, float],
    unit: Any,
    title: str,
) -> Figure:
    episodes, count = history.shape
    figure = style.new_figure(min(8.0, 1.7 + 0.13 * max(count, 10)))
    axes = figure.subplots()
    edges = (first - 0.5, first + episodes - 0.5, count - 0.5, -0.5)
    image = axes.imshow(
        history.T, aspect="auto", cmap="viridis", vmin=span[0], vmax=span[1], extent=edges, interpolation="nearest"
    )
    style.plain_axes(axes, "evaluation", "")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(style.whole_numbers())
    shown = style.labelled(count, 45)
    axes.set_yticks(shown, [style.short_name(units[number]) for number in shown], parse_math=False)
    axes.tick_params(axis="y", labelsize=7.5)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30, format=unit)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=style.INK, labelsize=9)
    style.add_title(axes, title)
    return figure


def reward_curve(tried: Sequence[Tried]) -> Figure:
    """Draws the reward of each episode and the best so far, for every search among the tried plans.

    Probes are left out. The uniform plan, if it was tried, is a horizontal line.
    """
    figure = style.new_figure(3.6)
    _draw_rewards(figure.subplots(), tried)
    return figure


def quality_against_macs(tried: Sequence[Tried], name: str, budget: float | None = None) -> Figure:
    """Draws quality against MACs of all tried plans.

    Args:
        tried: The plans.
        name: The task's name for its quality.
        budget: The share of the dense MACs that may remain; None if the budget is not in MACs.
    """
    figure = style.new_figure(4.2)
    axes = figure.subplots()
    style.plain_axes(axes, "MACs that remain (% of the dense network's)", f"{name} on the reward set (%)")
    axes.xaxis.set_major_formatter(style.percent())
    axes.yaxis.set_major_formatter(style.percent())
    axes.grid(axis="x", color=style.PALE, linewidth=0.8)
    looks = style.looks_of(one.proposed_by for one in tried)
    # Draw the rarest kinds last, so that the common kinds do not cover them.
    for proposed_by in sorted(looks, key=lambda proposed_by: -sum(one.proposed_by == proposed_by for one in tried)):
        colour, marker = looks[proposed_by]
        points = np.array([(one.macs_share, one.quality) for one in tried if one.proposed_by == proposed_by])
        alone = len(points) == 1
        size = {"*": 200.0}.get(marker, 64.0) if alone else 26.0
        edge = 1.3 if marker == "x" else 0.0
        dots = axes.scatter(
            points[:, 0], points[:, 1], s=size, c=colour, marker=marker, linewidths=edge, label=proposed_by
        )
        dots.set(alpha=1.0 if alone else 0.55, zorder=3)
    if budget is not None:
        axes.axvline(budget, color=style.INK, lw=1.2, linestyle=(0, (4, 3)), label=f"budget {budget:.0%}", zorder=2)
    style.add_title(axes, "Every plan tried")
    style.add_legend(axes)
    return figure


def result_picture(title: str, plan: PruningPlan, uniform: Mapping[str, int] | None, tried: Sequence[Tried]) -> Figure:
    """Draws the result in one picture: keep ratio per unit above, reward curve below.

    Args:
        title: The title, one line: model, budget and qualities.
        plan: The best plan.
        uniform: Widths of the uniform plan by unit name.
        tried: All tried plans.
    """
    figure = style.new_figure(6.8)
    above, below = figure.subplots(2, 1, height_ratios=(1.15, 1.0))
    _draw_keep_ratios(above, plan, uniform)
    _draw_rewards(below, tried)
    heading = figure.suptitle(printable(title), x=0.01, ha="left", fontsize=12, fontweight="bold", color=style.INK)
    heading.set_parse_math(False)
    return figure


def _draw_keep_ratios(axes: Axes, plan: PruningPlan, compare: Mapping[str, int] | None) -> None:
    style.plain_axes(axes, "unit, in forward order", "channels kept (%)")
    places = np.arange(len(plan.units))
    ratios = np.array([len(unit.kept) / unit.channels for unit in plan.units])
    free = np.array([unit.protected is None for unit in plan.units])
    axes.bar(places[free], 1.0, width=0.8, color=style.PALE, label="cut")
    axes.bar(places[free], ratios[free], width=0.8, color=style.BLUE, label="kept")
    if not free.all():
        bars = axes.bar(places[~free], ratios[~free], width=0.8, color="#F6F8FA", label="protected")
        for bar in bars:
            bar.set(hatch="////", edgecolor=style.GREY, linewidth=0.0)
    if compare is not None:
        other = [compare.get(unit.name, unit.channels) / unit.channels for unit in plan.units]
        edges = np.arange(len(plan.units) + 1) - 0.5
        # Leave out protected units: their width is the same in every plan.
        axes.stairs(
            np.where(free, other, np.nan), edges, baseline=None, color=style.VERMILION, lw=1.8, label="uniform plan"
        )
    shown = style.labelled(len(plan.units), 65)
    axes.set_xticks(shown, [style.short_name(plan.units[i].name) for i in shown], rotation=90, parse_math=False)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.7, len(plan.units) - 0.3)
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_formatter(style.percent())
    style.add_title(axes, "Channels kept of each unit")
    style.add_legend(axes, ("kept", "cut", "uniform plan"))


def _draw_rewards(axes: Axes, tried: Sequence[Tried]) -> None:
    style.plain_axes(axes, "episode", "reward")
    looks = style.looks_of(one.proposed_by for one in tried)
    uniform = [one.reward for one in tried if one.proposed_by == "uniform"]
    floor = _reward_floor(tried)
    for proposed_by in (proposed_by for proposed_by in looks if proposed_by not in NOT_A_SEARCH):
        rewards = np.array([one.reward for one in tried if one.proposed_by == proposed_by])
        episodes, low = np.arange(len(rewards)), rewards < floor
        colour, marker = looks[proposed_by]
        axes.scatter(episodes[~low], rewards[~low], s=16, color=colour, marker=marker, alpha=0.4, linewidths=0.0)
        off = axes.scatter(episodes[low], np.full(low.sum(), floor), s=16, color=colour, marker="v", alpha=0.4, lw=0.0)
        off.set_clip_on(False)
        best = np.maximum.accumulate(rewards)
        axes.plot(best, color=colour, linewidth=2.0, drawstyle="steps-post", label=f"{proposed_by}, best so far")
    if uniform:
        axes.axhline(max(uniform), color=style.VERMILION, linewidth=1.8, linestyle=(0, (4, 3)), label="uniform plan")
    axes.xaxis.set_major_locator(style.whole_numbers())
    if np.isfinite(floor):
        axes.set_ylim(bottom=floor)
        axes.scatter([], [], s=16, color=style.GREY, marker="v", label="below the scale")
    style.add_title(axes, "Reward of each episode")
    style.add_legend(axes)


def _reward_floor(tried: Sequence[Tried]) -> float:
    """Lower end of the reward axis, so that a few very bad early plans do not squeeze the rest; -inf for no limit."""
    searches = [one for one in tried if one.proposed_by not in NOT_A_SEARCH]
    if len(searches) < 20:
        return -np.inf
    low, middle, high = np.quantile([one.reward for one in searches], (0.0, 0.5, 1.0))
    best: dict[str, float] = {}
    for one in (one for one in tried if one.proposed_by not in ("probe", "dense")):
        best[one.proposed_by] = max(one.reward, best.get(one.proposed_by, one.reward))
    floor = min(high - max(3.0 * (high - middle), 0.25 * (high - low)), min(best.values()) - 0.05 * (high - low))
    return float(floor) if low < floor else -np.inf
