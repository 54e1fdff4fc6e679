"""Budget: every finished plan meets the budget, and every width from which the budget can be met is allowed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy import Watched, digits_config, image_set, toy_walk
from zoo import body, chain, conv, random_widths, small_images, traced, unit_of

from prune_env import LayerWalk
from prune_env.budget import Budget
from prune_env.budget.cost_form import cost_form
from prune_env.common.arrays import IntArray
from prune_env.common.errors import BudgetError
from prune_env.data import ArraySource, LabelledArrays, make_splits
from prune_env.env.builders import build_problem
from prune_env.walk.costs import Metric

METRICS: tuple[Metric, ...] = ("macs", "params")


def stream() -> nn.Module:
    """A unit that one convolution both reads and writes, so that its cost is quadratic in the width."""
    return body(lambda net, x: x + net.c(x), 20, 20, c=conv(20, 20))


def grouped() -> nn.Module:
    """A unit of slots: four groups of five inputs and three outputs each."""
    return body(lambda net, x: net.e(torch.relu(net.g(x))), 10, 20, g=conv(20, 12, groups=4), e=conv(12, 10))


def depthwise() -> nn.Module:
    return body(lambda net, x: net.p(torch.relu(net.d(x))), 10, 20, d=conv(20, 20, groups=20), p=conv(20, 10, 1))


def concat() -> nn.Module:
    return body(lambda net, x: torch.cat([x, net.l(x)], 1), 27, 20, l=conv(20, 7, 1))


WALKS = {
    "chain with a flatten": LayerWalk.trace(chain(), small_images()),
    "quadratic stream": LayerWalk.trace(stream(), small_images()),
    "grouped": LayerWalk.trace(grouped(), small_images()),
    "depthwise": LayerWalk.trace(depthwise(), small_images()),
    "concat": LayerWalk.trace(concat(), small_images()),
    "grouped, its inputs protected": LayerWalk.trace(grouped(), small_images(), protect={"a": "why"}),
    "half protected": LayerWalk.trace(stream(), small_images(), protect={"a": "why"}),
    "residual blocks": toy_walk(),
}
LARGE = ("resnet18", "mobilenet_v2", "regnet_y_400mf")
"""Traced for images of 64x64."""


def test_the_walks_under_test_hold_what_they_are_named_after() -> None:
    assert [unit.channels for unit in WALKS["grouped"].free] == [5, 3, 10, 6]
    assert len(WALKS["half protected"].free) == len(WALKS["quadratic stream"].free) - 1
    form = cost_form(WALKS["quadratic stream"], "macs")
    square, _, _ = form.along(np.zeros(2, dtype=np.int64), np.array([1, 0]))
    assert square > 0, "no layer reads and writes the stream"


@dataclass(frozen=True)
class Case:
    """A budget that can be reached, and what an independent reading of its settings allows.

    ``other`` is the share of the other metric that may remain besides; None for one metric alone.
    """

    name: str
    metric: Metric
    keep: float
    min_keep: float
    round_to: int
    other: float | None = None

    @property
    def walk(self) -> LayerWalk:
        return WALKS[self.name] if self.name in WALKS else traced(self.name).walk

    @property
    def budget(self) -> Budget:
        also = {case.metric: case.keep for case in self.limits[1:]}
        return Budget(self.walk, self.metric, self.keep, self.min_keep, self.round_to, also=also)

    @property
    def limits(self) -> list["Case"]:
        """This case and the one of its other metric, each alone."""
        (other,) = set(METRICS) - {self.metric}
        alone = replace(self, other=None)
        return [alone] if self.other is None else [alone, replace(alone, metric=other, keep=self.other)]

    @property
    def dense(self) -> int:
        return self.cost({})

    def cost(self, widths: Mapping[str, int]) -> int:
        return self.walk.macs(widths) if self.metric == "macs" else self.walk.params(widths)

    def fits(self, widths: Mapping[str, int]) -> bool:
        return all(one.cost(widths) <= one.keep * one.dense * (1 + 1e-12) for one in self.limits)

    def allowed(self, number: int) -> list[int]:
        channels = self.walk.free[number].channels
        return [
            width
            for width in range(1, channels + 1)
            if width == channels or (width % self.round_to == 0 and width >= self.min_keep * channels - 1e-9)
        ]

    def least(self) -> IntArray:
        return np.array([self.allowed(number)[0] for number in range(len(self.walk.free))], dtype=np.int64)

    def names(self, widths: IntArray) -> dict[str, int]:
        return {unit.name: int(width) for unit, width in zip(self.walk.free, widths, strict=True)}


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...] = tuple(WALKS)) -> Case:
    name = draw(st.sampled_from(names))
    metric = draw(st.sampled_from(METRICS))
    min_keep = draw(st.one_of(st.floats(0.01, 1.0), st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0])))
    case = Case(name, metric, 1.0, min_keep, draw(st.integers(1, 9)))
    case = replace(case, other=1.0 if draw(st.booleans()) else None)
    least = case.names(case.least())
    keeps = [draw(st.floats(one.cost(least) / one.dense, 1.0)) for one in case.limits]
    return replace(case, keep=keeps[0], other=keeps[1] if len(keeps) > 1 else None)


def wishes(count: int) -> st.SearchStrategy[list[float]]:
    """Keep ratios that an agent may ask for, including ratios that the budget forbids."""
    return st.lists(st.one_of(st.floats(0.0, 1.0), st.floats(0.0, 3.0)), min_size=count, max_size=count)


def play(budget: Budget, ratios: list[float]) -> IntArray:
    """Decides one unit after the other, as an episode does."""
    widths = budget.least.copy()
    for number, ratio in enumerate(ratios):
        wanted = budget.allowed(number, ratio * int(budget.channels[number]))
        widths[number] = min(wanted, budget.cap(number, widths))
    return widths


class TestEveryFinishedPlan:
    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_is_within_the_budget_at_allowed_widths_whatever_the_actions(self, data: st.DataObject) -> None:
        case = data.draw(cases())
        budget = case.budget
        widths = play(budget, data.draw(wishes(len(budget.units))))
        assert case.fits(budget.names(widths))
        for number, width in enumerate(widths):
            assert width in case.allowed(number)

    @settings(deadline=None, max_examples=25)
    @given(st.data())
    def test_is_within_the_budget_on_networks_of_any_widths(self, data: st.DataObject) -> None:
        first, second, third = (data.draw(st.integers(1, 24)) for _ in range(3))
        net = body(
            lambda net, x: x + net.d(torch.relu(net.c(x))),
            first,
            first,
            c=conv(first, second),
            d=conv(second, first),
            e=conv(third, third),
        )
        WALKS["drawn"] = LayerWalk.trace(net, small_images())
        case = data.draw(cases(("drawn",)))
        widths = play(case.budget, data.draw(wishes(len(case.budget.units))))
        assert case.fits(case.budget.names(widths))

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("name", LARGE)
    def test_is_within_the_budget_on_real_networks(self, name: str, metric: Metric) -> None:
        generator = np.random.default_rng(0)
        for round_to, keep in ((1, 0.5), (8, 0.5), (8, 0.75)):
            case = Case(name, metric, keep, 0.1, round_to)
            budget = case.budget
            for _ in range(5):
                widths = play(budget, generator.uniform(0, 2, len(budget.units)).tolist())
                assert case.fits(budget.names(widths))
                assert all(
                    width % round_to == 0 or width == c for width, c in zip(widths, budget.channels, strict=True)
                )

    def test_of_one_who_asks_for_everything_spends_nearly_all(self) -> None:
        case = Case("residual blocks", "macs", 0.5, 0.1, 1)
        widths = play(case.budget, [1.0] * 4)
        # Only rounding in the last unit leaves a rest: one more channel of this unit does not fit.
        wider = case.budget.names(widths + np.array([0, 0, 0, 1]))
        assert case.fits(case.budget.names(widths))
        assert not case.fits(wider)


class TestCap:
    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_is_the_largest_allowed_width_that_leaves_the_budget_in_reach(self, data: st.DataObject) -> None:
        case = data.draw(cases())
        budget = case.budget
        number = data.draw(st.integers(0, len(budget.units) - 1))
        widths = play(budget, data.draw(wishes(number)))
        best = 0
        for width in case.allowed(number):
            tried = widths.copy()
            tried[number] = width
            if case.fits(case.names(tried)):
                best = width
        assert budget.cap(number, widths) == best

    @settings(deadline=None, max_examples=200)
    @given(cases(), st.integers(0, 2**32 - 1))
    def test_takes_a_width_that_spends_the_budget_to_the_last_unit(self, case: Case, seed: int) -> None:
        generator = np.random.default_rng(seed)
        widths = case.least()
        number = int(generator.integers(len(widths)))
        for decided in range(number + 1):
            widths[decided] = generator.choice(case.allowed(decided))
        exact = replace(case, keep=case.cost(case.names(widths)) / case.dense, other=None).budget
        assert exact.limit == case.cost(case.names(widths))
        assert exact.cap(number, widths) == widths[number]

    def test_does_not_read_the_width_that_is_being_decided(self) -> None:
        budget = Budget(WALKS["quadratic stream"], "macs", 0.5)
        one, other = budget.least.copy(), budget.least.copy()
        other[0] = 17
        assert budget.cap(0, one) == budget.cap(0, other)
        assert other[0] == 17, "the widths given were changed"


class TestAllowed:
    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_is_the_nearest_width_that_is_allowed(self, data: st.DataObject) -> None:
        case = data.draw(cases())
        number = data.draw(st.integers(0, len(case.walk.free) - 1))
        wanted = data.draw(st.floats(0.0, 1.2)) * case.walk.free[number].channels
        found = case.budget.allowed(number, wanted)
        assert found in case.allowed(number)
        assert abs(found - wanted) <= min(abs(width - wanted) for width in case.allowed(number)) + 1e-9

    @pytest.mark.parametrize(
        ("channels", "round_to", "min_keep", "least"),
        [(20, 1, 0.1, 2), (20, 1, 0.11, 3), (20, 8, 0.1, 8), (20, 8, 0.5, 16), (20, 8, 0.9, 20), (6, 8, 0.1, 6)],
    )
    def test_starts_at_the_least_multiple_that_keeps_enough(
        self, channels: int, round_to: int, min_keep: float, least: int
    ) -> None:
        walk = LayerWalk.trace(body(lambda _, x: x, channels, channels), small_images())
        assert Budget(walk, "macs", 1.0, min_keep, round_to).least[0] == least


class TestCostForm:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("name", LARGE)
    def test_equals_the_walks_own_count_on_real_networks(self, name: str, metric: Metric) -> None:
        walk = traced(name).walk
        form = cost_form(walk, metric)
        for seed in range(10):
            widths = random_widths(walk, seed)
            vector = np.array([widths[unit.name] for unit in walk.free], dtype=np.int64)
            assert form.cost(vector) == (walk.macs(widths) if metric == "macs" else walk.params(widths))

    @settings(deadline=None, max_examples=150)
    @given(cases(), st.integers(0, 2**32 - 1))
    def test_equals_the_walks_own_count_on_small_networks(self, case: Case, seed: int) -> None:
        channels = case.budget.channels
        widths = np.random.default_rng(seed).integers(1, channels + 1)
        assert cost_form(case.walk, case.metric).cost(widths) == case.cost(case.names(widths))

    @settings(deadline=None, max_examples=100)
    @given(cases(), st.integers(0, 2**32 - 1))
    def test_along_a_line_is_the_cost_at_each_of_its_points(self, case: Case, seed: int) -> None:
        generator = np.random.default_rng(seed)
        form = cost_form(case.walk, case.metric)
        start, direction = generator.integers(0, 5, (2, len(case.walk.free)))
        square, slope, constant = form.along(start, direction)
        for x in range(4):
            assert square * x * x + slope * x + constant == form.cost(start + x * direction)


def real_cost(case: Case, ratios: Mapping[str, float]) -> float:
    """The cost at widths that need not be whole: the closed form of `prune_env.walk.costs` without its rounding."""
    model = case.walk.cost_model
    widths = [unit.channels * ratios.get(unit.name, 1.0) for unit in case.walk.units]
    total = 0.0 if case.metric == "macs" else float(model.fixed_params)
    for layer in model.layers:
        reads = 1.0 if layer.depthwise else layer.inputs.at(widths) / layer.groups
        weights = layer.kernel * reads * layer.outputs.at(widths)
        biases = layer.outputs.at(widths) if layer.bias else 0.0
        total += weights * layer.positions if case.metric == "macs" else weights + biases
    if case.metric == "params":
        total += sum(vector.params * vector.extent.at(widths) for vector in model.vectors)
    return total


class TestEvenRatio:
    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_given_to_all_undecided_units_spends_the_rest(self, data: st.DataObject) -> None:
        case = data.draw(cases())
        budget = case.budget
        count = data.draw(st.integers(0, len(budget.units) - 1))
        widths = play(budget, data.draw(wishes(count)))
        undecided = (np.arange(len(widths)) >= count).astype(np.int64)
        ratio = budget.even_ratio(widths, undecided)
        ratios = {
            unit.name: ratio if number >= count else widths[number] / unit.channels
            for number, unit in enumerate(budget.units)
        }
        assert 0.0 <= ratio <= 1.0
        spent = max(real_cost(one, ratios) / one.budget.limit for one in case.limits)
        if ratio == 1.0:
            assert spent <= 1 + 1e-9
        else:
            assert spent == pytest.approx(1.0, rel=1e-6)

    def test_reads_only_the_decided_widths(self) -> None:
        budget = Budget(WALKS["residual blocks"], "macs", 0.5)
        undecided = np.array([0, 1, 1, 1])
        assert budget.even_ratio(np.array([5, 1, 1, 1]), undecided) == budget.even_ratio(
            np.array([5, 9, 9, 9]), undecided
        )

    def test_is_the_more_the_less_was_kept_before(self) -> None:
        budget = Budget(WALKS["residual blocks"], "macs", 0.5)
        undecided = np.array([0, 1, 1, 1])
        ratios = [budget.even_ratio(np.array([width, 1, 1, 1]), undecided) for width in (1, 4, 8)]
        assert ratios[0] > ratios[1] > ratios[2]


def uniform_plans(case: Case) -> list[dict[str, int]]:
    """Every plan that one keep ratio for all units can give, from the narrowest to the widest."""

    def nearest(number: int, wanted: float) -> int:
        return min(case.allowed(number), key=lambda width: abs(width - wanted))

    units = case.walk.free
    turns = {0.0, 1.0}
    for number, unit in enumerate(units):
        turns |= {(one + other) / 2 / unit.channels for one, other in pairwise(case.allowed(number))}
    ratios = [(one + other) / 2 for one, other in pairwise(sorted(turns))] + [1.0]
    return [case.names(np.array([nearest(n, r * unit.channels) for n, unit in enumerate(units)])) for r in ratios]


class TestUniform:
    @settings(deadline=None, max_examples=200)
    @given(cases())
    def test_is_the_widest_uniform_plan_within_the_budget(self, case: Case) -> None:
        found = case.budget.names(case.budget.uniform())
        fitting = [plan for plan in uniform_plans(case) if case.fits(plan)]
        assert case.fits(found)
        # Where several units change their width at the same ratio, halves may be rounded up or down.
        assert all(found[name] >= width for name, width in fitting[-1].items())

    @settings(deadline=None, max_examples=200)
    @given(cases())
    def test_one_step_wider_breaks_the_budget(self, case: Case) -> None:
        found = case.budget.names(case.budget.uniform())
        wider = [plan for plan in uniform_plans(case) if all(plan[name] >= found[name] for name in found)]
        assert all(not case.fits(plan) for plan in wider if plan != found)

    def test_of_the_whole_budget_is_the_dense_network(self) -> None:
        budget = Budget(WALKS["residual blocks"], "macs", 1.0)
        assert budget.uniform().tolist() == [unit.channels for unit in budget.units]


class TestABudgetOutOfReach:
    @settings(deadline=None, max_examples=60)
    @given(cases())
    def test_is_refused_with_the_interval_that_is_in_reach(self, case: Case) -> None:
        low = case.cost(case.names(case.least())) / case.dense
        with pytest.raises(BudgetError) as caught:
            Budget(case.walk, case.metric, low * 0.99, case.min_keep, case.round_to)
        text = str(caught.value)
        assert case.metric in text
        (said,) = re.findall(r"Reachable are ([\d.]+) to 1\.", text)
        assert float(said) == pytest.approx(low, abs=1.01e-4)
        # The least share in the message is accepted, and slightly less is refused.
        Budget(case.walk, case.metric, float(said), case.min_keep, case.round_to)
        with pytest.raises(BudgetError):
            Budget(case.walk, case.metric, float(said) - 1.1e-4, case.min_keep, case.round_to)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("name", LARGE)
    def test_ends_exactly_where_the_interval_begins(self, name: str, metric: Metric) -> None:
        walk = traced(name).walk
        for min_keep in np.linspace(0.05, 0.95, 19).tolist():
            low, high = Budget(walk, metric, 1.0, min_keep).reachable
            tightest = Budget(walk, metric, low, min_keep)
            assert high == 1.0
            assert tightest.uniform().tolist() == tightest.least.tolist()
            with pytest.raises(BudgetError):
                Budget(walk, metric, low * (1 - 1e-6), min_keep)

    @settings(deadline=None, max_examples=60)
    @given(cases(), st.sampled_from([0, 1]))
    def test_is_refused_whichever_of_its_limits_it_is(self, case: Case, which: int) -> None:
        case = replace(case, keep=1.0, other=1.0)
        one = case.limits[which]
        low = 0.99 * one.cost(case.names(case.least())) / one.dense
        setting = f"budget.{one.metric if which else 'keep'}"
        with pytest.raises(BudgetError, match=f"^{setting}: .* of the dense {one.metric} .* Raise {setting}, "):
            _ = replace(case, **{("keep", "other")[which]: low}).budget

    def test_says_what_to_change(self) -> None:
        with pytest.raises(BudgetError, match=r"budget\.keep: 0\.001 .*Raise budget\.keep, lower env\.min_keep"):
            Budget(WALKS["concat"], "params", 0.001)

    @pytest.mark.parametrize("sensitivity", ["true", "false"])
    def test_is_refused_before_any_plan_is_evaluated(self, sensitivity: str) -> None:
        model = Watched(classes=2).eval()
        images = image_set(40, classes=2)
        pixels = (images.images.permute(0, 2, 3, 1) * 30 + 128).clamp(0, 255).numpy().astype(np.uint8)
        arrays = LabelledArrays.from_arrays(pixels, np.arange(40) % 2, "noise")
        source = ArraySource("noise", 2, arrays, arrays, (0.5, 0.5), (0.25, 0.25))
        config = digits_config("budget.keep=0.001", f"sensitivity.enabled={sensitivity}", "data.calibration_images=8")
        with pytest.raises(BudgetError, match="Reachable are"):
            build_problem(config, make_splits(source, 20, 8, seed=0), model)
        sizes = {size for size, _ in model.passes}
        assert 1 in sizes, "the network was not even traced"
        assert 20 not in sizes, "the reward set was evaluated"

    def test_because_nothing_is_free_names_the_reasons(self) -> None:
        walk = LayerWalk.trace(chain(), small_images(), protect={"0": "frozen stem", "3": "read by a head"})
        with pytest.raises(BudgetError, match=r"Nothing .*can be pruned.*0: frozen stem.*3: read by a head.*output"):
            Budget(walk, "macs", 0.5)
        assert unit_of(walk, "7").protected == "its channels are the network's output"
