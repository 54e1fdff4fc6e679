"""Race: a plan's evaluation stops as soon as the plan has lost; a winner's evaluation hardly ever stops."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from toy import SIDE, digits_config, digits_splits, image_set, random_plans, toy_problem, toy_resnet, toy_walk

from prune_env.common.arrays import IntArray
from prune_env.common.errors import ConfigError
from prune_env.data import ImageSet
from prune_env.env.builders import build_problem
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.evaluation import racing
from prune_env.evaluation.racing import Race
from prune_env.rewards import Outcome, make_reward

DENSE = Outcome(quality=0.9, loss=0.3, macs=1000, params=100)
REWARDS = {
    "error": {},
    "error_log_macs": {},
    "error_log_params": {},
    "accuracy_guaranteed": {"drop": 0.1},
    "budget_penalty": {"keep": 0.5, "weight": 0.4},
}


def race(images: int, looks: int = 3, reward: str = "error") -> Race:
    return Race(make_reward(reward, REWARDS[reward]), images, looks)


def costing(macs: int, params: int) -> Outcome:
    """An outcome with the given cost; its quality is not read."""
    return replace(DENSE, macs=macs, params=params, quality=math.nan)


class TestWhatIsNeeded:
    @pytest.mark.parametrize("reward", REWARDS)
    @pytest.mark.parametrize(("macs", "params"), [(400, 40), (500, 50), (900, 90)])
    def test_is_the_least_count_that_beats_the_best(self, reward: str, macs: int, params: int) -> None:
        images, value = 37, make_reward(reward, REWARDS[reward])

        def worth(right: int, cost: int = macs) -> float:
            return value(Outcome(right / images, 0.3, cost, params), DENSE)

        bests = {worth(right, cost) for right in range(images + 1) for cost in (macs, 450, 600)}
        for best in bests:
            winning = [right for right in range(images + 1) if worth(right) > best]
            assert race(images, reward=reward).needed(best, costing(macs, params), DENSE) == min(
                winning, default=images + 1
            )
        assert len(bests) > 10

    def test_is_more_than_all_where_nothing_beats_the_best(self) -> None:
        assert race(40).needed(0.0, costing(500, 50), DENSE) == 41


class TestAPlan:
    @pytest.mark.parametrize("needed", [1, 39, 40])
    def test_that_may_still_win_is_never_left_while_all_images_are_right(self, needed: int) -> None:
        for seen in range(1, 41):
            assert not race(40).bound(needed)(min(seen, needed), seen)

    def test_that_cannot_win_any_more_is_always_left(self) -> None:
        images = 30
        for seen in range(1, images + 1):
            for right in range(seen + 1):
                for needed in range(right + images - seen + 1, images + 2):
                    assert race(images, looks=1).bound(needed)(right, seen), (needed, right, seen)

    def test_that_has_what_it_needs_is_never_left(self) -> None:
        for seen in range(1, 31):
            assert not any(race(30).bound(needed)(seen, seen) for needed in range(seen + 1))

    def test_far_behind_is_left_long_before_it_has_lost_for_sure(self) -> None:
        """The plan needs 800 of 1000 images, and 750 images remain."""
        assert race(1000).bound(800)(170, 250)
        assert not race(1000).bound(800)(190, 250)

    def test_is_left_as_the_network_of_its_cost_must_be(self) -> None:
        """At the accuracy of the best plan, a cheaper plan wins and a more expensive plan loses."""
        tight = race(100, reward="error_log_macs")
        best = make_reward("error_log_macs")(Outcome(0.8, 0.3, 500, 50), DENSE)
        tight.best["agent"] = best
        cheaper, dearer = (tight.rule("agent", costing(macs, 50), DENSE) for macs in (400, 10**9))
        assert cheaper is not None
        assert dearer is not None
        assert not cheaper(60, 80)
        assert dearer(60, 80)


def wrongly_left(runs: int = 6000, images: int = 1000, batch: int = 250) -> float:
    """The share of races in which a plan that gets exactly the needed number of images right is stopped."""
    generator = np.random.default_rng(0)
    contest = race(images, looks=images // batch - 1)
    shares = []
    for needed in (500, 930):
        lost = cache(lambda right, seen, needed=needed: contest.bound(needed)(right, seen))
        answers = np.arange(images) < needed
        wrong = 0
        for _ in range(runs):
            right = generator.permutation(answers).cumsum()[batch - 1 :: batch]
            wrong += any(lost(int(count), batch * (look + 1)) for look, count in enumerate(right))
        shares.append(wrong / runs)
    assert min(shares) > 0, "nothing was ever left, so that nothing is tested"
    return max(shares)


class TestAWinner:
    def test_is_left_in_no_more_than_one_case_of_a_hundred(self) -> None:
        assert wrongly_left() <= 0.01

    def test_would_be_left_more_often_with_less_confidence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(racing, "CONFIDENCE", 0.9)
        assert wrongly_left(runs=1000) > 0.01


def searched(
    raced: bool, seed: int, reward: str = "error", wrong_labels: int = 40
) -> tuple[PruningProblem, list[Trial]]:
    """Trials of random widths on images that the dense network mostly gets right."""
    model, images = toy_resnet(), image_set(400, seed, side=SIDE)
    with torch.no_grad():
        labels = model(images.images).argmax(1)
    labels[:: 400 // wrong_labels] = images.targets[:: 400 // wrong_labels]
    problem = toy_problem(
        toy_walk(model), reward=reward, reward_set=ImageSet(images.images, labels), calibration=image_set(64, seed + 50)
    )
    problem.race = Race.on(problem.evaluator, problem.reward) if raced else None
    return problem, [problem.attempt(widths, "agent") for widths in random_plans(problem, 25, seed)]


class TestARacedSearch:
    @pytest.mark.parametrize("reward", ["error", "error_log_macs"])
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.slow
    def test_finds_the_same_best_trial_and_looks_at_fewer_images(self, seed: int, reward: str) -> None:
        (plain, everything), (raced, some) = (searched(way, seed, reward) for way in (False, True))
        best = max(everything, key=lambda trial: trial.reward)
        found = max(some, key=lambda trial: trial.reward)
        assert (found.number, found.outcome, found.reward) == (best.number, best.outcome, best.reward)
        assert found.outcome.complete
        assert plain.evaluator.images_left == 0
        assert raced.evaluator.images_left > 0.1 * 25 * 400

    def test_marks_what_it_left_and_measures_the_rest_as_ever(self) -> None:
        (_, everything), (_, some) = (searched(way, 0) for way in (False, True))
        left = [trial.number for trial in some if not trial.outcome.complete]
        assert 0 < len(left) < 25
        assert all(trial.outcome.complete for trial in everything)
        assert all(trial == everything[trial.number] for trial in some if trial.number not in left)
        best = -1.0
        for trial in some:
            assert trial.outcome.complete or trial.reward <= best
            best = max(best, trial.reward)


class TestATaskThatRaces:
    @staticmethod
    def perfect(batch_size: int = 8) -> PruningProblem:
        """A problem whose dense network classifies every image correctly, so no other plan can beat it."""
        images = image_set(48).images
        with torch.no_grad():
            labels = toy_resnet()(images).argmax(1)
        problem = toy_problem(reward_set=ImageSet(images, labels), batch_size=batch_size)
        problem.race = Race.on(problem.evaluator, problem.reward)
        return problem

    @staticmethod
    def widths(problem: PruningProblem) -> tuple[IntArray, IntArray]:
        return problem.budget.channels.copy(), problem.budget.uniform()

    def test_counts_the_images_that_are_left(self) -> None:
        problem = self.perfect(batch_size=8)
        dense, other = self.widths(problem)
        assert problem.attempt(dense, "agent").outcome.complete
        assert not problem.attempt(other, "agent").outcome.complete
        assert problem.evaluator.images_left == 40

    def test_does_not_race_before_there_is_a_best_of_the_same_kind(self) -> None:
        problem = self.perfect()
        dense, other = self.widths(problem)
        problem.attempt(dense, "uniform")
        assert problem.attempt(other, "agent").outcome.complete

    def test_never_races_probes(self) -> None:
        problem = self.perfect()
        for widths in self.widths(problem):
            assert problem.attempt(widths, "probe").outcome.complete
        assert problem.evaluator.images_left == 0

    def test_does_not_take_one_kinds_left_plan_for_anothers_result(self) -> None:
        problem = self.perfect()
        dense, other = self.widths(problem)
        problem.attempt(dense, "one")
        assert not problem.attempt(other, "one").outcome.complete
        assert problem.attempt(other, "other").outcome.complete


class TestTheConfig:
    def test_with_ones_own_reward_is_refused_with_the_way_out(self) -> None:
        config = digits_config("search.racing=true", "reward.name=operator:sub")
        for refuse in (
            lambda: check_names(config),
            lambda: build_problem(config, digits_splits(), torch.nn.Identity()),
        ):
            with pytest.raises(ConfigError, match=r"search\.racing: true .*'operator:sub'.*Set search\.racing to f"):
                refuse()

    @pytest.mark.parametrize("racing", ["true", "false"])
    def test_with_the_librarys_rewards_is_taken(self, racing: str) -> None:
        check_names(digits_config(f"search.racing={racing}", "reward.name=error_log_macs"))
