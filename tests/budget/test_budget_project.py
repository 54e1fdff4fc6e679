"""Budget.project: the widest plan of given proportions that the budget allows."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_budget import Case, cases

from prune_env.common.arrays import IntArray

wide = settings(deadline=None, max_examples=120)


def proportions(count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.01, 1000.0), min_size=count, max_size=count)


def plans_in_proportion(case: Case, wanted: list[float]) -> list[IntArray]:
    """Every plan that one common factor can give, from the narrowest to the widest, found by trying."""
    options = [np.array(case.allowed(number)) for number in range(len(wanted))]
    turns = sorted(
        {(one + other) / 2 / share for one, share in zip(options, wanted, strict=True) for one, other in pairwise(one)}
    )
    # Two units whose widths change at the same factor, up to rounding, change together.
    turns = [0.0, *(one for one, other in pairwise([*turns, np.inf]) if other - one > 1e-9 * one)]
    factors = [(one + other) / 2 for one, other in pairwise(turns)] + [2 * turns[-1] + 1]
    return [
        np.array([int(o[np.abs(o - factor * share).argmin()]) for o, share in zip(options, wanted, strict=True)])
        for factor in factors
    ]


@wide
@given(st.data())
def test_a_projection_is_within_the_budget_at_allowed_widths(data: st.DataObject) -> None:
    case = data.draw(cases())
    widths = case.budget.project(data.draw(proportions(len(case.walk.free))))
    assert case.fits(case.names(widths))
    assert all(width in case.allowed(number) for number, width in enumerate(widths.tolist()))


@wide
@given(st.data())
def test_a_wider_plan_of_the_same_proportions_breaks_the_budget(data: st.DataObject) -> None:
    case = data.draw(cases())
    wanted = data.draw(proportions(len(case.walk.free)))
    found = case.budget.project(wanted)
    fitting = [plan for plan in plans_in_proportion(case, wanted) if case.fits(case.names(plan))]
    assert (found >= fitting[-1]).all()


def raised(case: Case, widths: IntArray) -> dict[int, IntArray]:
    """The plans within the budget in which one unit has its next allowed width, by the unit's number."""
    plans = {}
    for number, width in enumerate(widths.tolist()):
        plan = widths.copy()
        plan[number] = min((option for option in case.allowed(number) if option > width), default=0)
        if plan[number] and case.fits(case.names(plan)):
            plans[number] = plan
    return plans


@wide
@given(st.data())
def test_nothing_more_fits_into_the_budget(data: st.DataObject) -> None:
    case = data.draw(cases())
    assert not raised(case, case.budget.project(data.draw(proportions(len(case.walk.free)))))


@wide
@given(st.data())
def test_the_unit_furthest_behind_its_proportion_rises_first(data: st.DataObject) -> None:
    case = data.draw(cases())
    widths, wanted = case.least(), data.draw(proportions(len(case.walk.free)))
    found = case.budget.filled(widths, wanted)
    while plans := raised(case, widths):
        # The factor at which a unit's width is rounded to its next one.
        first = min(plans, key=lambda number: ((widths[number] + plans[number][number]) / 2 / wanted[number], number))
        widths = plans[first]
    assert np.array_equal(found, widths)


@wide
@given(st.data())
def test_only_proportions_count(data: st.DataObject) -> None:
    case = data.draw(cases())
    wanted = np.array(data.draw(proportions(len(case.walk.free))))
    scale = 2.0 ** data.draw(st.integers(-20, 20))  # exact, so that no half is rounded the other way
    assert np.array_equal(case.budget.project(scale * wanted), case.budget.project(wanted))


@wide
@given(cases())
def test_the_dense_networks_proportions_give_the_uniform_plan(case: Case) -> None:
    budget = case.budget
    assert np.array_equal(budget.project(budget.channels / 8), budget.uniform())


@wide
@given(cases(), st.integers(0, 2**32 - 1))
def test_random_widths_are_at_the_budget_and_follow_the_seed(case: Case, seed: int) -> None:
    one, again = (case.budget.random(np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, again)
    assert case.fits(case.names(one))
    assert all(width in case.allowed(number) for number, width in enumerate(one.tolist()))


def test_random_widths_differ_the_more_the_wider_their_spread() -> None:
    budget = Case("residual blocks", "macs", 0.5, 0.1, 1).budget
    generator = np.random.default_rng(0)
    deviations = [
        np.std([budget.random(generator, spread) / budget.channels for _ in range(30)], axis=0).mean()
        for spread in (0.0, 0.1, 0.5)
    ]
    assert deviations[0] == 0
    assert 0 < 2 * deviations[1] < deviations[2]
