"""The numbers behind the charts, and that Vega-Lite takes every specification."""

import json

import numpy as np
import pytest
import vl_convert

from prune_env.report import charts
from prune_env.report.page_data import thinned
from prune_env.report.vega import VEGA_LITE

CHARTS = {
    "keep ratios": charts.keep_ratios(True, 3),
    "rewards": charts.rewards(["ddpg", "uniform"], -0.5, True),
    "front": charts.front("macs", "MACs", "accuracy", ["ddpg"], 0.5, 0.5, True),
    "latencies": charts.latencies(3),
    "heat map": charts.heat_map("history", "ratios", 2, [1, 2], (0.0, 1.0), ".0%"),
    "training": charts.training("loss", "loss", ".3f", ["finetune"], 3),
    "comparison": charts.comparison(["ddpg", "random"], "accuracy", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHARTS)
def test_vega_lite_takes_the_specification_without_a_warning(name, capfd):
    spec = {**CHARTS[name].spec, "width": 300, "config": charts.THEME}
    vega = vl_convert.vegalite_to_vega(json.dumps(spec), vl_version=VEGA_LITE)
    assert vega["marks"]
    assert capfd.readouterr().err == ""


def test_a_front_holds_what_nothing_beats():
    generator = np.random.default_rng(0)
    points = [
        {"macs": float(cost), "quality": float(cost // 2 + luck)} for cost, luck in generator.integers(0, 12, (60, 2))
    ]
    front = charts.pareto_front([*points, {"macs": None, "quality": 1.0}, {"macs": 0.0, "quality": None}], "macs")
    kept = {(point["macs"], point["quality"]) for point in front}

    def beaten(point: dict) -> bool:
        return any(
            other != point and other["macs"] <= point["macs"] and other["quality"] >= point["quality"]
            for other in points
        )

    assert kept == {(point["macs"], point["quality"]) for point in points if not beaten(point)}
    assert [point["macs"] for point in front] == sorted(point["macs"] for point in front)
    assert 1 < len(front) < 12


def test_a_few_very_bad_values_do_not_squeeze_an_axis():
    values = [0.9 + 0.001 * number for number in range(40)]
    assert charts.lower_end(values) is None
    assert charts.lower_end([*values, 0.1]) == pytest.approx(0.939 - 0.25 * 0.839)
    assert charts.lower_end([*values, 0.1], [0.4]) < 0.4
    assert charts.lower_end(values[:5]) is None


@pytest.mark.parametrize(("count", "most"), [(0, 5), (5, 5), (6, 5), (1000, 7), (3, 1)])
def test_a_selection_is_small_and_keeps_the_last(count, most):
    chosen = thinned(list(range(count)), most)
    assert len(chosen) <= most
    assert chosen[-1:] == list(range(count))[-1:]
    assert chosen == sorted(chosen)


@pytest.mark.parametrize(("last", "ticks"), [(1, [1]), (2, [1, 2]), (30, [1, 5, 9, 13, 17, 21, 25, 29])])
def test_epochs_are_whole_numbers(last: int, ticks: list[int]) -> None:
    across = charts.training("loss", "loss", ".3f", ["finetune"], last).spec["encoding"]["x"]
    assert across["axis"] == {"values": ticks, "format": "d"}
