"""Criteria: one score per channel of every unit, by the formula in the criterion's name."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy import toy_walk
from zoo import body, chain, conv, small_images, traced, unit_of

from prune_env import LayerWalk
from prune_env.common.errors import ConfigError, UserError
from prune_env.criteria import (
    CRITERIA,
    ScoringContext,
    criterion_named,
    known_criteria,
    register_criterion,
    score_channels,
)
from prune_env.walk import Scores


def rows(module: nn.Module) -> np.ndarray:
    """The weights that produce each output channel, [channels, weights]."""
    return module.weight.detach().flatten(1).double().numpy()


FORMULAS = {
    "l1": lambda weights: np.abs(weights).sum(1),
    "l2": lambda weights: np.sqrt((weights**2).sum(1)),
}


@pytest.mark.parametrize("name", FORMULAS)
class TestNorms:
    def test_of_a_plain_unit_are_those_of_its_one_layer(self, name: str) -> None:
        model = chain()
        scores = score_channels(name, ScoringContext(LayerWalk.trace(model, small_images())))
        for layer in ("0", "3", "7"):
            assert scores[layer] == pytest.approx(FORMULAS[name](rows(model[int(layer)])), rel=1e-6)

    def test_of_a_coupled_unit_run_over_all_that_writes_it(self, name: str) -> None:
        walk = toy_walk()
        parts = [rows(getattr(walk.model, part)) for part in ("up", "project", "out")]
        expected = FORMULAS[name](np.concatenate(parts, axis=1))
        assert score_channels(name, ScoringContext(walk))["up"] == pytest.approx(expected, rel=1e-6)

    def test_of_grouped_slots_run_over_the_slots_of_all_groups(self, name: str) -> None:
        net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4))
        walk = LayerWalk.trace(net, small_images())
        by_slot = rows(net.g).reshape(4, 3, -1).transpose(1, 0, 2).reshape(3, -1)
        scores = score_channels(name, ScoringContext(walk))
        assert scores["g"] == pytest.approx(FORMULAS[name](by_slot), rel=1e-6)
        # The unit that feeds the groups is cut by slots, too: two channels in each of four groups.
        feeding = rows(net.a).reshape(4, 2, -1).transpose(1, 0, 2).reshape(2, -1)
        assert scores["a"] == pytest.approx(FORMULAS[name](feeding), rel=1e-6)

    def test_with_a_depthwise_layer_run_over_its_filters_too(self, name: str) -> None:
        net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1))
        expected = FORMULAS[name](np.concatenate([rows(net.a), rows(net.d)], axis=1))
        assert score_channels(name, ScoringContext(LayerWalk.trace(net, small_images())))["a"] == pytest.approx(
            expected, rel=1e-6
        )

    @pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "cifar_resnet20"])
    def test_are_given_to_every_channel_of_every_unit(self, name: str, model: str) -> None:
        walk = traced(model).walk
        scores = score_channels(name, ScoringContext(walk))
        assert set(scores) == {unit.name for unit in walk.units}
        for unit in walk.units:
            assert scores[unit.name].shape == (unit.channels,)
            assert (scores[unit.name] > 0).all()

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_that_are_not_finite_are_refused_with_the_unit(self, name: str, value: float) -> None:
        walk = toy_walk()
        with torch.no_grad():
            walk.model.out.weight[3, 0, 0, 0] = value
        with pytest.raises(UserError, match=rf"'{name}' gave unit 'up' a score that is not finite.*weights"):
            score_channels(name, ScoringContext(walk))


def test_l1_and_l2_disagree_where_one_large_weight_stands_against_many_small_ones() -> None:
    model = chain()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 0, 0] = 2.0
        model[0].weight[1] = 0.1
    walk = LayerWalk.trace(model, small_images())
    plans = [walk.plan({"0": 1}, score_channels(name, ScoringContext(walk))).kept["0"] for name in ("l1", "l2")]
    assert plans == [(1,), (0,)]


@pytest.mark.parametrize(("given", "nearest"), [("l11", "l1"), ("L2", "l2"), ("l_2", "l2")])
def test_an_unknown_criterion_is_refused_with_the_nearest_name(given: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{given}'; did you mean '{nearest}'\? \(known: .*l1, l2"):
        score_channels(given, ScoringContext(toy_walk()))


def test_a_name_like_no_other_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError, match=r"'qqq'; known: .*l1, l2"):
        score_channels("qqq", ScoringContext(toy_walk()))


def test_a_criterion_of_ones_own_is_known_by_its_name() -> None:
    def last(context: ScoringContext) -> Scores:
        return {unit.name: np.arange(unit.channels, dtype=np.float64) for unit in context.walk.units}

    walk = toy_walk()
    with CRITERIA.restored():
        register_criterion("last channels")(last)
        assert "last channels" in known_criteria()
        kept = walk.plan({"stem": 2}, score_channels("last channels", ScoringContext(walk))).kept["stem"]
        with pytest.raises(ValueError, match="criterion named 'last channels' is registered already"):
            register_criterion("last channels")(last)
    assert kept == (unit_of(walk, "stem").channels - 2, unit_of(walk, "stem").channels - 1)


OWN = """
import numpy as np
from prune_env.criteria import register_criterion

def of(context, scores):
    return {unit.name: scores(unit) for unit in context.walk.units}

def last(context):
    return of(context, lambda unit: list(range(unit.channels)))
last.needs, last.random = "weights", False

def silent(context):
    return of(context, lambda unit: np.zeros(unit.channels))

@register_criterion("first channels", needs="images")
def first(context):
    return of(context, lambda unit: -np.arange(unit.channels))

def wrong_needs(context):
    return {}
wrong_needs.needs = "labels"

def short(context):
    return {**last(context), "down": np.zeros(3)}
def column(context):
    return {**last(context), "down": np.zeros((12, 1))}
def partly(context):
    return {name: values for name, values in last(context).items() if name != "down"}
def words(context):
    return {**last(context), "down": ["best"] * 12}
def single(context):
    return np.zeros(12)
short.needs = column.needs = partly.needs = words.needs = single.needs = "weights"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a user's module with valid and invalid criteria."""
    (tmp_path / "own_criteria_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with CRITERIA.restored():
        yield "own_criteria_of_a_test"
    sys.modules.pop("own_criteria_of_a_test", None)


def test_a_criterion_of_ones_own_is_named_by_its_module(own: str) -> None:
    walk = toy_walk()
    scores = score_channels(f"{own}:last", ScoringContext(walk))
    assert scores["stem"].tolist() == list(range(8))
    assert scores["stem"].dtype == np.float64
    assert walk.plan({"stem": 2}, scores).kept["stem"] == (6, 7)


@pytest.mark.parametrize(
    ("name", "needs", "random"), [("last", "weights", False), ("silent", "targets", True), ("first", "images", False)]
)
def test_a_criterion_reads_what_it_declares_or_else_everything(own: str, name: str, needs: str, random: bool) -> None:
    found = criterion_named(f"{own}:{name}")
    assert (found.needs, found.random) == (needs, random)


def test_what_a_criterion_declares_to_read_must_exist(own: str) -> None:
    with pytest.raises(ConfigError, match="attribute needs is 'labels'; allowed are 'weights', 'images', 'targets'"):
        criterion_named(f"{own}:wrong_needs")


def test_a_criterion_that_declares_nothing_is_refused_without_images_and_told_how_to_declare_less(own: str) -> None:
    with pytest.raises(ConfigError, match=r"own can declare that it needs less: needs = 'weights'\."):
        score_channels(f"{own}:silent", ScoringContext(toy_walk()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", r"gave unit 'down' scores of shape \(3,\)\. It must give each unit .* here 12\."),
        ("column", r"gave unit 'down' scores of shape \(12, 1\)\."),
        ("partly", r"gave unit 'down' no scores\."),
        ("words", r"gave unit 'down' no numbers: .*best"),
        ("single", r"gave ndarray\. It must give a mapping of unit names to arrays"),
    ],
)
def test_scores_that_do_not_fit_are_refused_at_once_with_criterion_and_unit(own: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^Criterion '{own}:{name}' {words}"):
        score_channels(f"{own}:{name}", ScoringContext(toy_walk()))
