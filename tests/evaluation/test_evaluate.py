"""Evaluator: measures the cut network itself, once for each plan, with recalibrated batch norms."""

import gc
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import (
    HALF,
    TASK,
    Watched,
    digits_config,
    digits_splits,
    evaluator_of,
    image_set,
    random_plans,
    statistics,
    toy_problem,
    toy_resnet,
    toy_walk,
    trained_digits,
)
from zoo import body, conv, imprint, small_images

from prune_env import LayerWalk, PruningPlan
from prune_env.batch_norm.recalibration import BatchNorm
from prune_env.common.errors import EvaluationError
from prune_env.data import ImageSet
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.measuring import Measurement, measure


class TestTheDenseNetwork:
    def test_has_exactly_the_accuracy_that_a_plain_forward_pass_gives(self) -> None:
        model, images = trained_digits(), digits_splits().reward()
        walk = LayerWalk.trace(model, images.images[:1])
        found = Evaluator(walk, images, digits_splits().calibration(), ExecutionSettings(batch=16)).dense()
        with torch.no_grad():
            logits = model(images.images)
        right = int((logits.argmax(1) == images.targets).sum())
        assert found.accuracy == right / len(images)
        assert found.loss == pytest.approx(float(F.cross_entropy(logits, images.targets)), rel=1e-5)
        assert (found.macs, found.params) == (walk.macs(), walk.params())
        assert found.accuracy > 0.8, "the network has not learned anything"

    def test_is_worth_its_own_error_to_the_reward(self) -> None:
        problem = toy_problem()
        trial = problem.attempt(problem.budget.channels.copy(), "test")
        assert trial.reward == -(1.0 - problem.baseline.accuracy)
        assert trial.outcome == problem.baseline

    def test_keeps_its_batch_norm_statistics(self) -> None:
        walk = toy_walk()
        same = evaluator_of(walk).pruned(walk.plan({}))
        for name, tensor in statistics(walk.model).items():
            assert torch.equal(statistics(same)[name], tensor)


class TestTheSamePlan:
    def test_is_never_evaluated_twice(self) -> None:
        model = Watched().eval()
        walk = toy_walk(model)
        evaluator = evaluator_of(walk)
        model.passes.clear()
        first = evaluator.evaluate(walk.plan(HALF))
        once = list(model.passes)
        second = evaluator.evaluate(PruningPlan.model_validate(walk.plan(HALF).model_dump()))
        assert first == second
        assert list(model.passes) == once
        assert once == [(16, 4), (12, 4), (12, 4)], "one calibration batch, then the reward set, at the cut width"
        assert (evaluator.misses, evaluator.hits) == (1, 1)

    def test_is_told_apart_by_its_channels_and_not_by_its_widths(self) -> None:
        walk = toy_walk()
        evaluator = evaluator_of(walk)
        up, down = (np.arange(8.0), np.arange(8.0)[::-1])
        outcomes = [evaluator.evaluate(walk.plan({"stem": 4}, {"stem": scores})) for scores in (up, down)]
        assert (evaluator.misses, evaluator.hits) == (2, 0)
        assert outcomes[0].loss != outcomes[1].loss

    def test_is_marked_as_cached_in_its_second_trial(self) -> None:
        problem = toy_problem()
        widths = problem.budget.uniform()
        assert [problem.attempt(widths, "test").cached for _ in range(2)] == [False, True]


class TestACutNetwork:
    def test_is_measured_as_it_is_cut_and_not_masked(self) -> None:
        walk = toy_walk()
        plan = walk.plan(HALF)
        reward, calibration = image_set(24, seed=1), image_set(16, seed=2)
        found = evaluator_of(walk, reward, calibration).evaluate(plan)
        small = plan.apply(walk.model)
        assert small.fc.in_features == 8
        for module in small.modules():
            if isinstance(module, BatchNorm):
                module.reset_running_stats()
                module.momentum = 1.0
                module.train()
        with torch.no_grad():
            small(calibration.images)
            logits = small.eval()(reward.images)
        assert found.loss == pytest.approx(float(F.cross_entropy(logits, reward.targets)), rel=1e-4)
        assert found.accuracy == float((logits.argmax(1) == reward.targets).double().mean())

    def test_costs_what_the_walk_says(self) -> None:
        walk = toy_walk()
        found = evaluator_of(walk).evaluate(walk.plan(HALF))
        assert (found.macs, found.params) == (walk.macs(HALF), walk.params(HALF))

    def test_leaves_the_dense_network_as_it_is(self) -> None:
        walk = toy_walk()
        walk.model.train()
        before = imprint(walk.model)
        evaluator = evaluator_of(walk)
        dense = evaluator.dense()
        evaluator.evaluate(walk.plan(HALF))
        evaluator.evaluate(walk.plan({"stem": 1}))
        assert imprint(walk.model) == before
        # The evaluator's own copy is unchanged, too: a second measurement of the dense network gives the same result.
        again = measure(evaluator.pruned(walk.plan({})), evaluator.reward, evaluator.task)
        assert again == Measurement(dense.accuracy, dense.loss, 24)

    def test_gives_the_same_outcome_whatever_was_evaluated_before(self) -> None:
        walk = toy_walk()
        fresh, used = evaluator_of(walk), evaluator_of(walk)
        for seed in range(3):
            torch.manual_seed(seed)
            used.evaluate(walk.plan({"stem": seed + 1, "mid": 3}))
        assert used.evaluate(walk.plan(HALF)) == fresh.evaluate(walk.plan(HALF))

    def test_whose_weights_are_not_finite_is_refused_with_its_widths(self) -> None:
        walk = toy_walk()
        with torch.no_grad():
            walk.model.mid.weight[5] = math.nan
        with pytest.raises(EvaluationError, match=re.escape("{'stem': 8, 'down': 12, 'up': 16, 'mid': 24, 'fc': 4}")):
            evaluator_of(walk).dense()

    def test_with_random_labels_is_right_by_chance_only(self) -> None:
        images = digits_splits().source.load("train", np.arange(1000))
        labels = torch.randint(10, (1000,), generator=torch.Generator().manual_seed(0))
        walk = LayerWalk.trace(trained_digits(), images[:1])
        evaluator = Evaluator(walk, ImageSet(images, labels), digits_splits().calibration())
        plans = [walk.plan({}), walk.plan({unit.name: round(0.7 * unit.channels) for unit in walk.free})]
        for plan in plans:
            # Five standard deviations of a coin with ten sides.
            assert abs(evaluator.evaluate(plan).accuracy - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 1000)


class TestAPlanStoppedEarly:
    def test_is_marked_as_incomplete_and_its_images_left_are_counted(self) -> None:
        walk = toy_walk()
        evaluator = evaluator_of(walk)
        found = evaluator.evaluate(walk.plan(HALF), lambda _, seen: seen == 12)
        assert (found.complete, evaluator.images_left) == (False, 12)
        assert found.accuracy == measure(evaluator.network, evaluator.reward[:1], evaluator.task).quality

    def test_is_evaluated_again_where_everything_is_asked_for(self) -> None:
        walk = toy_walk()
        evaluator = evaluator_of(walk)
        evaluator.evaluate(walk.plan(HALF), lambda *_: True)
        found = evaluator.evaluate(walk.plan(HALF))
        assert found.complete
        assert found == evaluator_of(walk).evaluate(walk.plan(HALF))
        assert evaluator.hits == 0

    def test_is_complete_where_nothing_was_left(self) -> None:
        walk = toy_walk()
        evaluator = evaluator_of(walk)
        assert evaluator.evaluate(walk.plan(HALF), lambda _, seen: seen == 24).complete
        assert evaluator.images_left == 0


def test_a_run_is_timed_phase_by_phase_and_counts_for_no_hit() -> None:
    walk = toy_walk()
    evaluator = evaluator_of(walk)
    assert evaluator.run(walk.plan(HALF)) == evaluator.run(walk.plan(HALF)) == evaluator.evaluate(walk.plan(HALF))
    assert set(evaluator.seconds) == {"slicing", "recalibration", "folding", "forward"}
    assert min(evaluator.seconds.values()) > 0
    assert (evaluator.hits, evaluator.misses) == (0, 1)


class TestMeasuring:
    @pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
    def test_does_not_depend_on_the_batch_size(self, batch_size: int) -> None:
        images = image_set(24)
        accuracy, loss, count = measure(toy_resnet(), images.batches(batch_size), TASK)
        with torch.no_grad():
            logits = toy_resnet()(images.images)
        assert accuracy == int((logits.argmax(1) == images.targets).sum()) / 24
        assert loss == pytest.approx(float(F.cross_entropy(logits, images.targets)), rel=1e-5)
        assert count == 24

    def test_stops_after_the_batch_at_which_it_is_told_to_stop_early(self) -> None:
        images = image_set(24)
        batches = list(images.batches(8))
        asked: list[tuple[int, int]] = []

        def stop_early(correct: int, seen: int) -> bool:
            asked.append((correct, seen))
            return seen >= 16

        found = measure(toy_resnet(), batches, TASK, stop_early)
        assert found == measure(toy_resnet(), batches[:2], TASK)
        assert asked == [(asked[0][0], 8), (round(found.quality * 16), 16)]


def test_reward_calibration_and_test_images_are_three_disjoint_sets_and_those_of_the_splits() -> None:
    config = digits_config("execution={layout: channels_last, dtype: float32, folded: true, batch: 64, threads: 1}")
    splits = load_splits(config)
    evaluator = build_problem(config, splits, trained_digits()).evaluator
    reward, calibration = set(splits.reward_indices.tolist()), set(splits.calibration_indices.tolist())
    assert not reward & calibration
    assert not (reward | calibration) & set(splits.train_indices.tolist())
    for batches, indices in (
        (evaluator.reward, splits.reward_indices),
        (evaluator.calibration, splits.calibration_indices),
    ):
        images = torch.cat([images for images, _ in batches])
        assert torch.equal(images, splits.source.load("train", indices))
        labels = torch.cat([labels for _, labels in batches])
        assert labels.tolist() == splits.source.targets("train")[indices].tolist()


def grouped_net() -> nn.Module:
    return body(
        lambda net, x: net.p(torch.relu(net.d(torch.relu(net.gn(net.g(x)))))),
        10,
        8,
        g=conv(8, 12, groups=4),
        gn=nn.BatchNorm2d(12),
        d=conv(12, 12, groups=12),
        p=conv(12, 10, 1),
    )


@pytest.mark.parametrize("make", [toy_resnet, grouped_net], ids=["residual", "grouped and depthwise"])
def test_evaluating_plans_leaves_nothing_behind(make: object) -> None:
    model = make().eval()
    colours = next(model.parameters()).shape[1]
    walk = LayerWalk.trace(model, image_set(1, colours=colours).images)
    problem = toy_problem(
        walk, reward_set=image_set(8, 1, colours=colours), calibration=image_set(8, 2, colours=colours), batch_size=8
    )
    plans = random_plans(problem, 60)
    for widths in plans[:10]:
        problem.attempt(widths, "warm-up")
    counts = []
    for start in (10, 35):
        for widths in plans[start : start + 25]:
            problem.attempt(widths, "test")
        gc.collect()
        counts.append(len(gc.get_objects()))
    # Two objects for each new outcome in the cache; a network left behind would be hundreds.
    assert counts[1] - counts[0] <= 2 * 25 + 20


def test_a_plan_of_a_grouped_network_is_evaluated_with_whole_groups() -> None:
    model = grouped_net().eval()
    walk = LayerWalk.trace(model, small_images())
    slots = next(unit for unit in walk.free if unit.name == "g")
    evaluator = evaluator_of(walk, image_set(8, 1, colours=3), image_set(8, 2, colours=3))
    small = evaluator.pruned(walk.plan({"g": 1, "a": 1}))
    assert (slots.channels, small.g.groups, small.g.weight.shape[0], small.d.groups) == (3, 4, 4, 4)
    assert math.isfinite(evaluator.evaluate(walk.plan({"g": 1, "a": 1})).loss)
