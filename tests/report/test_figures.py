"""The pictures: valid, readable for networks of any size, and different for different data."""

import warnings
from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from prune_env.plan import PlannedCosts, PlannedMember, PlannedUnit, PruningPlan
from prune_env.report.comparison_figure import Band, comparison_picture
from prune_env.report.figure_style import figure_pixels, labelled, looks_of, short_name
from prune_env.report.figures import (
    Tried,
    figure_png,
    keep_ratio_bars,
    keep_ratio_heat_map,
    quality_against_macs,
    result_picture,
    reward_curve,
    series_heat_map,
)

pytestmark = pytest.mark.slow


def made_plan(widths: Mapping[str, int], channels: int = 16, protected: Mapping[str, str] | None = None) -> PruningPlan:
    units = [
        PlannedUnit(
            name=name,
            channels=channels,
            kept=list(range(width)),
            protected=(protected or {}).get(name),
            members=[PlannedMember(module=name, side="out")],
        )
        for name, width in widths.items()
    ]
    costs = PlannedCosts(dense_macs=1000, macs=500, dense_params=100, params=50)
    return PruningPlan(units=units, costs=costs, fingerprint={})


def made_search(count: int, seed: int = 0) -> list[Tried]:
    generator = np.random.default_rng(seed)
    accuracies = 0.9 - generator.uniform(0.0, 0.5, count)
    searched = [Tried("ddpg", float(value) - 1, float(value), 0.49) for value in accuracies]
    return [Tried("dense", np.nan, 0.95, 1.0), Tried("uniform", -0.2, 0.8, 0.5), *searched]


def texts(figure: Figure) -> list[str]:
    """All texts of a figure."""
    axes = figure.axes
    legends = [legend for one in axes if (legend := one.get_legend()) is not None]
    return [
        *(text.get_text() for one in axes for text in (*one.get_xticklabels(), *one.get_yticklabels())),
        *(text.get_text() for legend in legends for text in legend.get_texts()),
        *(label for one in axes for label in (one.get_xlabel(), one.get_ylabel(), one.get_title(loc="left"))),
    ]


def size(png: bytes) -> tuple[int, int]:
    image = Image.open(BytesIO(png))
    image.verify()
    assert image.format == "PNG"
    return image.size


PLAN = made_plan({"stem": 8, "block.conv1": 4, "fc": 16}, protected={"fc": "the output"})
FIGURES = {
    "bars": lambda: keep_ratio_bars(PLAN, {"stem": 7, "block.conv1": 7}),
    "heat map": lambda: keep_ratio_heat_map(np.array([[0.5, 1.0], [0.2, 0.7]]), ["stem", "block.conv1"]),
    "rewards": lambda: reward_curve(made_search(30)),
    "scatter": lambda: quality_against_macs(made_search(30), "accuracy", 0.5),
    "result": lambda: result_picture("digits: 50%", PLAN, {"stem": 7, "block.conv1": 7}, made_search(30)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_of_a_readable_size(name):
    width, height = size(figure_png(FIGURES[name]()))
    assert 1000 <= width <= 2000
    assert 300 <= height <= 1500


def test_the_same_data_give_the_same_picture():
    assert figure_png(FIGURES["result"]()) == figure_png(FIGURES["result"]())


OTHER_DATA = {
    "plan": (
        lambda: keep_ratio_bars(PLAN),
        lambda: keep_ratio_bars(made_plan({"stem": 9, "block.conv1": 4, "fc": 16})),
    ),
    "compared plan": (lambda: keep_ratio_bars(PLAN), lambda: keep_ratio_bars(PLAN, {"stem": 7})),
    "heat map": (
        lambda: keep_ratio_heat_map(np.full((3, 2), 0.5), "ab"),
        lambda: keep_ratio_heat_map(np.full((3, 2), 0.6), "ab"),
    ),
    "rewards": (lambda: reward_curve(made_search(9)), lambda: reward_curve(made_search(9, seed=1))),
    "budget": (
        lambda: quality_against_macs(made_search(9), "accuracy"),
        lambda: quality_against_macs(made_search(9), "accuracy", 0.5),
    ),
}


@pytest.mark.parametrize("what", OTHER_DATA)
def test_other_data_give_another_picture(what):
    one, other = OTHER_DATA[what]
    assert not np.array_equal(figure_pixels(one()), figure_pixels(other()))


def test_pixels_are_those_of_the_png():
    figure = FIGURES["bars"]()
    assert np.array_equal(figure_pixels(figure), np.asarray(Image.open(BytesIO(figure_png(figure))).convert("RGB")))


def test_bars_are_as_high_as_the_keep_ratios_and_protected_units_are_hatched():
    axes = keep_ratio_bars(PLAN).axes[0]
    heights = {
        bars.get_label(): [(bar.get_height(), bar.get_hatch()) for bar in bars.patches] for bars in axes.containers
    }
    assert heights["kept"] == [(0.5, None), (0.25, None)]
    assert heights["protected"] == [(1.0, "////")]
    assert {"kept", "cut", "protected"} <= set(texts(axes.get_figure()))


def test_a_plan_without_protected_units_has_no_legend_entry_for_them():
    assert "protected" not in texts(keep_ratio_bars(made_plan({"a": 3, "b": 4})))


def test_every_axis_says_what_it_shows_and_in_which_unit():
    written = texts(FIGURES["scatter"]())
    assert "MACs that remain (% of the dense network's)" in written
    assert "accuracy on the reward set (%)" in written
    assert {"ddpg", "uniform", "dense", "budget 50%"} <= set(written)
    assert {"channels kept (%)", "unit, in forward order", "reward", "episode"} <= set(texts(FIGURES["result"]()))


def test_130_units_are_drawn_with_labels_that_do_not_overlap():
    names = [f"features.denseblock4.denselayer{number}.conv1" for number in range(130)]
    figure = keep_ratio_bars(made_plan(dict.fromkeys(names, 5)))
    assert size(figure_png(figure))[0] == 1350
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) >= 40
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
    heat = keep_ratio_heat_map(np.random.default_rng(0).uniform(size=(7, 130)), names)
    figure_pixels(heat)
    boxes = [label.get_window_extent() for label in heat.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))


def test_a_heat_map_of_one_episode_shows_its_number_alone():
    figure = keep_ratio_heat_map(np.full((1, 3), 0.5), ["a", "b", "c"], first=7)
    figure_pixels(figure)
    left, right = sorted(figure.axes[0].get_xlim())
    ticks = [tick for tick in figure.axes[0].get_xticks() if left <= tick <= right]
    assert ticks == [7]


def test_the_best_so_far_never_falls_and_ends_at_the_best():
    tried = [Tried("ddpg", reward, 0.5, 0.5) for reward in (-0.5, -0.2, -0.9, -0.1)]
    (line,) = reward_curve(tried).axes[0].get_lines()
    assert list(line.get_ydata()) == [-0.5, -0.2, -0.2, -0.1]


def test_probes_are_no_episodes():
    tried = [Tried("probe", -0.01, 0.99, 0.97), *made_search(5)]
    axes = reward_curve(tried).axes[0]
    assert "ddpg, best so far" in texts(axes.get_figure())
    assert not any("probe" in text for text in texts(axes.get_figure()))


def test_wild_early_plans_are_marked_below_the_scale():
    tried = [Tried("ddpg", -0.9, 0.1, 0.5)] * 8 + [Tried("ddpg", -0.1 - 1e-4 * i, 0.9, 0.5) for i in range(40)]
    axes = reward_curve([*tried, Tried("uniform", -0.2, 0.8, 0.5)]).axes[0]
    assert -0.9 < axes.get_ylim()[0] < -0.2
    assert "below the scale" in texts(axes.get_figure())


@pytest.mark.parametrize(
    "tried", [[], [Tried("ddpg", -0.5, 0.5, 0.5)], [Tried("ddpg", -0.5, 0.5, 0.5)] * 40], ids=["none", "one", "alike"]
)
def test_few_or_equal_plans_can_be_drawn(tried):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        size(figure_png(reward_curve(tried)))
        size(figure_png(quality_against_macs(tried, "accuracy", 0.5)))


def test_names_with_formulas_in_them_are_written_as_they_are():
    plan = made_plan({r"a$\frac$": 4, "b$_": 5})
    picture = result_picture(r"model $\frac$", plan, None, made_search(3))
    size(figure_png(picture))
    size(figure_png(keep_ratio_heat_map(np.full((2, 2), 0.5), list(plan.widths))))


def test_each_kind_of_trial_keeps_its_own_look():
    looks = looks_of(["ddpg", "uniform", "random", "greedy", "probe"])
    assert len(set(looks.values())) == 5
    assert looks["ddpg"] == looks_of(["ddpg"])["ddpg"]


def test_labels_thin_out_and_long_names_lose_their_beginning():
    assert labelled(5, 64) == [0, 1, 2, 3, 4]
    assert labelled(130, 65) == list(range(0, 130, 2))
    assert short_name("features.denseblock1.denselayer12.conv1") == "…k1.denselayer12.conv1"


def test_no_picture_is_left_open_in_pyplot():
    figure_png(FIGURES["result"]())
    assert pyplot.get_fignums() == []


HOSTILE = r"$\badmacro{$ $x_1$ " + "\x1b[31m"


def test_names_are_no_formulas_and_hold_no_control_characters() -> None:
    """A dollar sign begins a formula in matplotlib, and a wrong formula ends the drawing."""
    tried = [Tried(HOSTILE, 0.5, 0.5, 0.5), Tried("dense", 0.9, 0.9, 1.0)]
    curve = {HOSTILE: Band(*np.full((3, 4), 0.5))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of characters that its font lacks
        for figure in (
            keep_ratio_heat_map(np.array([[0.5]]), [HOSTILE]),
            series_heat_map(HOSTILE, [{HOSTILE: 1.0}]),
            quality_against_macs(tried, HOSTILE),
            reward_curve(tried),
            comparison_picture(HOSTILE, curve, HOSTILE),
        ):
            assert figure_png(figure)
