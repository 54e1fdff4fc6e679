"""PruningEnv with stripes: the share of a unit's stripes as the action."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import digits_config, digits_splits, image_set, toy_problem, toy_resnet, toy_walk, trained_digits

from prune_env import LayerWalk, PruningEnv, RunConfig
from prune_env.agents.rules import rule_plans
from prune_env.budget import Budget
from prune_env.common.errors import BudgetError, UserError
from prune_env.criteria import ScoringContext
from prune_env.env.builders import build_problem, build_space, build_walk
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.trial import Trial
from prune_env.evaluation.dense import measure_dense
from prune_env.granularity import GranularityContext
from prune_env.granularity.stripe import Stripe, StripeEdit
from prune_env.granularity.stripe.edit import stripes_of
from prune_env.granularity.stripe.granularity import filter_norms
from prune_env.granularity.stripe.settings import StripeSettings
from prune_env.plan import PruningPlan
from prune_env.report.inspection import inspect_space
from prune_env.search import Search
from prune_env.search.loop import train_agent
from prune_env.search.registry import SEARCHES, check_evaluations
from prune_env.testing.counts import counted_macs, counted_params


def stripe_problem(walk: LayerWalk | None = None, sharing: str = "threshold", **given: Any) -> PruningProblem:
    granularity = StripeSettings(name="stripe", sharing=sharing)
    return toy_problem(walk, **{"reward_set": image_set(4), "granularity": granularity, **given})


def plan_after(problem: PruningProblem, actions: Sequence[float]) -> PruningPlan:
    env = PruningEnv(problem=problem)
    env.reset(seed=0)
    *_, last = [env.step(np.array([action], dtype=np.float32)) for action in actions]
    plan: PruningPlan = last[-1]["plan"]
    return plan


def test_the_checker_has_nothing_to_say() -> None:
    gymnasium_check(PruningEnv(problem=stripe_problem()), skip_render_check=True)


def test_layers_whose_kernel_has_one_position_are_named_and_stay_whole() -> None:
    granularity = stripe_problem().granularity
    assert isinstance(granularity, Stripe)
    assert set(granularity.whole) == {"project", "mid", "fc"}
    assert "1x1" in granularity.whole["mid"] or "1 x 1" in granularity.whole["mid"]
    (table,) = granularity.tables(32)
    assert [row[0] for row in table.rows] == ["stem", "down", "up", "out", *granularity.whole]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.sampled_from(["macs", "params"]),
    st.sampled_from(["threshold", "equal"]),
    st.floats(0.15, 0.9),
    st.floats(0.15, 1.0),
)
def test_the_budget_is_met_to_the_integer_whatever_the_actions(
    actions: list[float], metric: str, sharing: str, keep: float, also: float
) -> None:
    other = "params" if metric == "macs" else "macs"
    problem = stripe_problem(sharing=sharing, metric=metric, keep=keep, also={other: also})
    plan = plan_after(problem, actions)
    cost = plan.costs.macs if metric == "macs" else plan.costs.params
    assert cost <= problem.budget.limit
    assert getattr(plan.costs, other) <= also * getattr(plan.costs, f"dense_{other}")
    assert plan.budget is not None
    assert plan.budget.achieved == pytest.approx(cost / problem.budget.dense, abs=1e-12)
    small = plan.apply(problem.walk.model)
    images = image_set(1).images
    assert (plan.costs.macs, plan.costs.params) == (counted_macs(small, images), counted_params(small))


class TestABudgetBelowWholeChannels:
    """With widths in multiples of 8, whole channels of the toy reach 0.40 of the MACs, and stripes far less."""

    @settings(deadline=None, max_examples=25)
    @given(
        st.lists(st.floats(-1, 1), min_size=4, max_size=4),
        st.sampled_from(["macs", "params"]),
        st.sampled_from([1, 8]),
        st.floats(0, 1),
    )
    def test_is_met_from_the_smallest_plan_on(
        self, actions: list[float], metric: str, round_to: int, spread: float
    ) -> None:
        whole = stripe_problem(metric=metric, keep=1.0, round_to=round_to)
        low, high = whole.granularity.reachable(whole.budget)
        least = whole.budget.reachable[0]
        assert high == 1.0
        assert low < least
        problem = stripe_problem(metric=metric, keep=low + spread * (least - low), round_to=round_to)
        plan = plan_after(problem, actions)
        cost = plan.costs.macs if metric == "macs" else plan.costs.params
        assert round(low * problem.budget.dense) <= cost <= problem.budget.limit
        small = plan.apply(problem.walk.model)
        assert (plan.costs.macs, plan.costs.params) == (
            counted_macs(small, image_set(1).images),
            counted_params(small),
        )

    def test_is_refused_below_the_smallest_plan_with_the_interval_in_words(self) -> None:
        with pytest.raises(BudgetError, match=r"budget\.keep: 0\.01 .*one stripe for each of its channels") as caught:
            stripe_problem(keep=0.01, round_to=8)
        (said,) = re.findall(r"Reachable are ([\d.]+) to 1\.", str(caught.value))
        accepted = stripe_problem(keep=float(said), round_to=8)
        low, _ = accepted.granularity.reachable(accepted.budget)
        assert low == pytest.approx(float(said), abs=1.01e-4)
        with pytest.raises(BudgetError):
            stripe_problem(keep=float(said) - 1.1e-4, round_to=8)

    def test_leaves_every_unit_its_least_share_while_that_fits(self) -> None:
        problem = stripe_problem(keep=0.1, round_to=8)
        stripes = problem.granularity.record(plan_after(problem, [1.0] * 4))["stripes"]
        assert stripes["stem"] >= round(0.1 * 8 * 9)
        assert stripes["down"] >= round(0.1 * 12 * 25)
        assert stripes["up"] + stripes["out"] >= round(0.1 * 2 * 16 * 9)

    def test_is_refused_for_a_search_that_decides_widths_alone(self) -> None:
        problem = stripe_problem(keep=0.3, round_to=8, probe_keep=0.5)
        for name in ("uniform", "random", "greedy", "cma", "tpe"):
            with pytest.raises(BudgetError, match=rf"agent.name={name} decides widths alone.*channels reach 0\.\d+ to"):
                check_evaluations(problem, digits_config(f"agent.name={name}", "search.evaluations=20"))
        assert problem.trials == 0
        check_evaluations(problem, digits_config("agent.name=thresholds", "search.evaluations=20"))

    def test_is_refused_for_widths_that_a_search_of_ones_own_proposes(self) -> None:
        class Own(Search):
            def ask(self) -> Proposal:
                return Proposal(self.problem.budget.uniform())

            def tell(self, proposal: Proposal, trial: Trial) -> None:  # noqa: ARG002
                raise AssertionError("a plan over the budget was measured")

        problem, config = stripe_problem(keep=0.3, round_to=8), digits_config("agent.name=own", "search.evaluations=3")
        with SEARCHES.restored():
            SEARCHES.add("own", Own)
            with pytest.raises(BudgetError, match=r"agent\.name=own decides widths alone"):
                train_agent(problem, config)

    @pytest.mark.parametrize("round_to", ["8", "null"])
    def test_of_a_configuration_is_told_and_refused_by_the_smallest_plan(self, round_to: str) -> None:
        splits, model = digits_splits(), trained_digits()

        def config(keep: float) -> RunConfig:
            fixed = ("granularity.name=stripe", "sensitivity.enabled=false", "env.min_keep=0.3")
            return digits_config(*fixed, f"env.round_to={round_to}", f"budget.keep={keep}")

        walk, _ = build_walk(config(1.0), splits, model)
        least = Budget(walk, "macs", 1.0, 0.3, 8 if round_to == "8" else 1).reachable[0]
        space = build_space(config(0.9 * least), splits, model)
        dense = measure_dense(model, splits, space.context.task, torch.device("cpu"))
        assert inspect_space(space, dense, 1.0)["budget"]["reachable"][0] < 0.9 * least
        with pytest.raises(BudgetError, match="with one stripe for each of its channels"):
            build_problem(config(1e-4), splits, model)

    def test_agents_are_shown_rules_that_edits_bring_within_the_budget(self) -> None:
        problem = stripe_problem(keep=0.3, round_to=8, probe_keep=0.5)
        for widths in rule_plans(problem):
            plan = problem.planner.plan(Proposal(numbers=(widths / problem.budget.channels)[:, None]))
            assert plan.costs.macs <= problem.budget.limit


@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_the_even_action_spends_the_budget(keep: float) -> None:
    plan = plan_after(stripe_problem(keep=keep), [0.0] * 4)
    assert plan.budget is not None
    assert 0.97 * keep <= plan.budget.achieved <= keep


def test_a_filter_without_stripes_goes_as_a_channel_and_a_shared_one_stays() -> None:
    walk = toy_walk()
    # The weakest filter of the stem has next to no strength; in the stream, other layers write the channel, too.
    walk.model.stem.weight.data[3] *= 1e-4
    walk.model.up.weight.data[5] *= 1e-4
    plan = plan_after(stripe_problem(walk, keep=0.6), [0.0] * 4)
    assert 3 not in plan.kept["stem"]
    edits = stripes_of(plan)
    assert 5 in plan.kept["up"]
    assert edits["up"].positions[edits["up"].filters.index(5)] == []


def test_a_channel_that_a_whole_filter_writes_strongly_stays() -> None:
    walk = toy_walk()
    for layer in (walk.model.up, walk.model.out):
        layer.weight.data[5] *= 1e-4
    assert 5 not in plan_after(stripe_problem(walk, keep=0.15), [0.0] * 4).kept["up"]
    walk.model.project.weight.data[5] *= 20.0
    plan = plan_after(stripe_problem(walk, keep=0.15), [0.0] * 4)
    assert 5 in plan.kept["up"]
    assert len(plan.kept["up"]) < 16
    for layer in ("up", "out"):
        edit = stripes_of(plan)[layer]
        assert len(edit.positions[edit.filters.index(5)]) <= 1


def test_a_transposed_convolution_s_filters_are_those_of_its_outputs() -> None:
    layer = torch.nn.ConvTranspose2d(4, 6, 3, groups=2)
    weight = layer.weight.detach()
    wanted = [weight[2 * (number // 3) : 2 * (number // 3) + 2, number % 3].norm() for number in range(6)]
    assert filter_norms(layer, layer.weight) == pytest.approx(np.array(wanted, dtype=np.float64), rel=1e-6)


def test_the_table_of_a_plan_tells_which_layers_kept_one_stripe_because_they_must_keep_one() -> None:
    problem = stripe_problem(keep=0.9)
    (table,) = problem.granularity.tables(32, plan_after(problem, [1.0, 1.0, -1.0, 1.0]))
    alone = [row[0] for row in table.rows if row[2] == "1"]
    assert ("must keep one" in table.words) == bool(alone)
    env_low = stripe_problem(keep=0.15, min_keep=0.01)
    (low,) = env_low.granularity.tables(32, plan_after(env_low, [-1.0] * 4))
    alone = [row[0] for row in low.rows if row[2] == "1"]
    assert alone
    assert f"strongest stripe of {', '.join(alone)} stays" in low.words


def test_rows_of_the_record_name_the_stripes_and_tell_positions_apart() -> None:
    problem = stripe_problem()
    first, second = (plan_after(problem, actions) for actions in ([0.0] * 4, [0.3, -0.3, 0.2, 0.1]))
    records = [problem.granularity.record(plan) for plan in (first, second)]
    edited = {name: edit.stripes for name, edit in stripes_of(first).items()}
    assert edited.items() <= records[0]["stripes"].items()
    assert records[0]["positions"] != records[1]["positions"]
    dense = {"stem": 8 * 9, "down": 12 * 25, "up": 16 * 9, "out": 16 * 9}
    assert problem.granularity.record(problem.walk.plan({})) == {"stripes": dense, "positions": None}
    half = problem.granularity.record(problem.walk.plan({"stem": 4}))
    assert half["stripes"] == {**dense, "stem": 4 * 9}
    assert problem.granularity.series(half) == {"stripes": {"stem": 0.5, "down": 1.0, "up": 1.0, "out": 1.0}}
    measured = problem.granularity.measurements()
    assert measured is not None
    restored = Stripe(StripeSettings(name="stripe")).restore(measured)
    assert restored.series(half) == problem.granularity.series(half)


def test_strengths_by_criterion_must_not_be_negative() -> None:
    walk = toy_walk(toy_resnet())
    scores = {unit.name: np.linspace(-1, 1, unit.channels) for unit in walk.units}
    context = GranularityContext(ScoringContext(walk), scores, 0.1, lambda: image_set(1).images)
    with pytest.raises(UserError, match="below 0"):
        Stripe(StripeSettings(name="stripe", strength="criterion")).prepare(context)


def test_a_plan_with_stripes_is_read_as_it_was_written(tmp_path: Any) -> None:
    plan = plan_after(stripe_problem(), [0.0] * 4)
    plan.save(tmp_path / "plan.json")
    read = PruningPlan.load(tmp_path / "plan.json")
    assert read == plan
    assert all(isinstance(edit, StripeEdit) for edit in read.by_layer.values())
