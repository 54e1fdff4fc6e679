"""`search.rungs`: a search's best plans are trained for a while, and rank by what they are worth then."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from practice import noise_source, settings_of
from toy import TASK, digits_config, image_set, toy_problem

from benchmarks.synthetic_walks import synthetic_problem
from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.agents.learners import OffPolicyLearner
from prune_env.agents.optimisers import CmaEs
from prune_env.common.errors import ConfigError, DataError, RunError
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.short_training import ShortTraining
from prune_env.env.trial import Trial
from prune_env.evaluation.evaluator import Evaluator, plan_key
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import PruningPlan
from prune_env.rewards import Outcome
from prune_env.search.ladder import RUNG, SHARE, Ladder
from prune_env.search.pools import Pool
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes
from prune_env.search.registry import SEARCHES
from prune_env.testing.search import LastFirst

RUNGS = [5, 20]
EVALUATIONS = 50


@dataclass
class Guess:
    """In place of a training: an outcome that only the plan and the steps decide, unlike the plan's own."""

    salt: int = 0

    def outcome(self, evaluator: Evaluator, plan: PruningPlan, steps: int) -> Outcome:  # noqa: ARG002
        drawn = np.random.default_rng([*plan_key(plan), steps, self.salt]).random()
        return Outcome(float(drawn), 1.0 - float(drawn), plan.costs.macs, plan.costs.params)


def config_of(name: str, lag: int = 1, rungs: list[int] = RUNGS) -> RunConfig:
    search = {"evaluations": EVALUATIONS, "lag": lag, "rungs": rungs}
    agent = {"name": name, "hidden": [8], "demonstrations": name != "ddpg" or lag > 1}
    return RunConfig.from_mapping(
        {"model": {"name": "toy"}, "data": {"name": "noise"}, "agent": agent, "search": search}
    )


def problem_of(salt: int = 0) -> PruningProblem:
    problem = synthetic_problem(0, coupled=True)
    problem.short_training = Guess(salt)  # type: ignore[assignment]
    return problem


def searched(
    config: RunConfig, pool: Callable[[PruningProblem], Pool] = Here, recorded: list[Any] | None = None
) -> tuple[list[Trial], Trial]:
    """All trials of a search, and its best."""
    problem, trials = problem_of(), list[Trial]()
    problem.recorded_trials = recorded or []
    problem.listeners.append(trials.append)
    return trials, train_agent(problem, config, pool=pool(problem)).best


class TestASearchWithRungs:
    @pytest.mark.parametrize(
        ("name", "lag"),
        [("ddpg", 3), ("cma", 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("ddpg", 1), ("cma", 3)))],
    )
    def test_is_the_same_with_any_workers_and_after_any_interruption(self, name: str, lag: int) -> None:
        config = config_of(name, lag)
        whole, best = searched(config)
        assert searched(config, LastFirst) == (whole, best)
        records = [json.loads(json.dumps(trial.as_record())) for trial in whole]
        rungs = [trial.number for trial in whole if trial.proposed_by == RUNG]
        for stop in (rungs[0], rungs[0] + 1, rungs[-1]):
            assert searched(config, recorded=records[:stop]) == (whole, best)

    def test_proposes_as_many_plans_as_without_and_trains_a_share_of_them(self) -> None:
        trials, _ = searched(config_of("cma"))
        proposed = [trial for trial in trials if trial.proposed_by == "cma"]
        trained = [trial.steps for trial in trials if trial.proposed_by == RUNG]
        assert len(proposed) == EVALUATIONS
        different = len({plan_key(trial.plan) for trial in proposed})
        assert different // SHARE <= trained.count(RUNGS[0]) <= different
        assert trained.count(RUNGS[0]) // SHARE <= trained.count(RUNGS[1]) < trained.count(RUNGS[0])
        plain, _ = searched(config_of("cma", rungs=[]))
        assert [trial.proposed_by for trial in plain] == ["cma"] * EVALUATIONS

    def test_ends_with_the_best_of_the_plans_that_were_trained_longest(self) -> None:
        trials, best = searched(config_of("cma"))
        longest = [trial for trial in trials if trial.steps == RUNGS[-1]]
        assert best.reward == max(trial.reward for trial in longest)
        assert best in longest

    @pytest.mark.parametrize("name", ["ddpg", "cma"])
    def test_goes_where_the_trainings_lead(self, name: str) -> None:
        one, _ = searched(config_of(name))
        problem, other = problem_of(salt=1), list[Trial]()
        problem.listeners.append(other.append)
        train_agent(problem, config_of(name))
        proposed = [[trial.plan.widths for trial in trials if not trial.steps] for trials in (one, other)]
        assert proposed[0] != proposed[1]

    def test_is_not_resumed_with_other_rungs(self) -> None:
        whole, _ = searched(config_of("cma"))
        records = [json.loads(json.dumps(trial.as_record())) for trial in whole]
        with pytest.raises(RunError, match="was 'rung' with"):
            searched(config_of("cma", rungs=[6, 20]), recorded=records)


def trial_of(plan: PruningPlan, reward: float, number: int, steps: int = 0) -> Trial:
    outcome = Outcome(reward, 1.0 - reward, plan.costs.macs, plan.costs.params)
    return Trial(number, RUNG if steps else "some", plan, outcome, reward, False, 1.0, "accuracy", steps=steps)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=40, unique=True), st.integers(0, 2**32 - 1))
def test_trained_plans_exchange_their_places_and_the_others_keep_theirs(rewards: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    problem = toy_problem()
    ladder, numbers, stands, later = Ladder(RUNGS), {}, {}, {}
    for number, reward in enumerate(rewards):
        plan = problem.plan(np.array([1 + number % 7, 1 + number // 7, 2, 2]))
        proposal = Proposal(plan=plan)
        numbers[proposal] = stands[proposal] = number
        outcomes = [(proposal, trial_of(plan, reward, number))]
        while outcomes:
            for changed, trial in ladder.hear(*outcomes.pop()):
                stands[changed] = trial.number
            if (promoted := ladder.promote()) is not None:
                value = float(generator.random())
                later[numbers[promoted.note.proposal], promoted.steps] = value
                outcomes.append((promoted, trial_of(promoted.plan, value, -1, promoted.steps)))
    places = {numbers[proposal]: place for proposal, place in stands.items()}
    assert sorted(places.values()) == list(range(len(rewards)))
    for steps in RUNGS:
        trained = [number for number in places if (number, steps) in later]
        # Whoever is on a rung holds the places of this rung, in the order of this rung's outcomes unless they are on
        # the next one, too.
        if steps == RUNGS[0]:
            assert {places[number] for number in trained} == set(trained)
        alone = [number for number in trained if (number, RUNGS[-1]) not in later or steps == RUNGS[-1]]
        by_outcome = sorted(alone, key=lambda number: -later[number, steps])
        by_place = sorted(alone, key=lambda number: -rewards[places[number]])
        assert by_outcome == by_place


def test_a_plan_that_is_proposed_twice_climbs_once() -> None:
    plan = toy_problem().plan(np.array([2, 2, 2, 2]))
    ladder = Ladder(RUNGS)
    for number in range(2 * SHARE):
        ladder.hear(Proposal(plan=plan), trial_of(plan, 0.5, number))
    assert ladder.promote() is None


def changed_to(problem: PruningProblem, reward: float) -> Trial:
    return trial_of(problem.plan(problem.budget.uniform()), reward, 99)


def test_an_agent_ranks_a_stored_episode_anew() -> None:
    problem = toy_problem()
    search = SEARCHES.find("ddpg")(problem, config_of("ddpg"))
    assert isinstance(search, OffPolicyLearner)
    proposals = [search.ask() for _ in range(3)]
    for number, proposal in enumerate(proposals):
        search.tell(proposal, trial_of(problem.planner.plan(proposal), number / 10, number))
    search.revise([(proposals[1], changed_to(problem, 0.9)), (search.ask(), changed_to(problem, 0.8))])
    steps = len(problem.budget.units)
    stored = search.agent.replay_buffer.rewards[: 3 * steps, 0].reshape(3, steps)
    assert stored.tolist() == np.repeat(np.float32([0.0, 0.9, 0.2]), steps).reshape(3, steps).tolist()


def test_cma_es_ranks_a_candidate_of_an_open_generation_anew() -> None:
    problem = toy_problem()
    search = SEARCHES.find("cma")(problem, config_of("cma"))
    assert isinstance(search, CmaEs)
    proposals = [search.ask() for _ in range(3)]
    for number, proposal in enumerate(proposals):
        search.tell(proposal, trial_of(problem.plan(proposal.widths), number / 10, number))
    search.revise([(proposals[1], changed_to(problem, 0.9))])
    assert [cost for _, cost in search._told] == pytest.approx([1.0, 0.1, 0.8])


class TestAShortTraining:
    def of(self, **given: Any) -> ShortTraining:
        recipe = settings_of(batch_size=8, distillation=0.7, augment="crop_flip", average=0.05, **given)
        return ShortTraining(noise_source(40), np.arange(40), recipe, 0, TASK)

    def test_depends_on_the_plan_and_the_steps_alone(self) -> None:
        problem, training = toy_problem(), self.of()
        plans = [problem.plan(problem.budget.uniform()), problem.plan(problem.budget.least)]
        dense = {name: tensor.clone() for name, tensor in problem.evaluator.model.state_dict().items()}
        first = training.outcome(problem.evaluator, plans[0], 5)
        training.outcome(problem.evaluator, plans[1], 5)
        assert training.outcome(problem.evaluator, plans[0], 5) == first
        assert training.outcome(problem.evaluator, plans[0], 6) != first
        assert self.of(learning_rate=0.1).outcome(problem.evaluator, plans[0], 5) != first
        torch.manual_seed(torch.seed())
        sent = pickle.loads(pickle.dumps(training))
        assert sent.outcome(toy_problem().evaluator, plans[0], 5) == first
        assert all(torch.equal(tensor, dense[name]) for name, tensor in problem.evaluator.model.state_dict().items())

    def test_gives_the_costs_of_the_plan(self) -> None:
        problem = toy_problem()
        plan = problem.plan(problem.budget.uniform())
        found = self.of().outcome(problem.evaluator, plan, 2)
        assert (found.macs, found.params, found.images) == (plan.costs.macs, plan.costs.params, None)
        assert replace(found, quality=0.0) != replace(problem.evaluator.evaluate(plan), quality=0.0)

    @pytest.mark.slow
    def test_gives_the_same_in_the_processes_of_workers(self) -> None:
        found = []
        for pool in (Here, partial(Processes, workers=2)):
            problem, trials = toy_problem(probe_keep=None), list[Trial]()
            problem.evaluator = Evaluator(
                problem.walk, image_set(24, seed=1), image_set(16, seed=2), ExecutionSettings(batch=16, threads=1)
            )
            problem.short_training = self.of()
            problem.listeners.append(trials.append)
            with pool(problem) as measuring:
                train_agent(problem, config_of("random", lag=2), pool=measuring)
            found.append(trials)
        assert found[0] == found[1]
        assert {trial.steps for trial in found[0]} == {0, *RUNGS}

    def test_without_images_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"search\.rungs: given, but no image is left"):
            replace(self.of(), indices=np.arange(0))


@pytest.mark.parametrize("rungs", ["[100, 100]", "[400, 100]", "[0, 5]"])
def test_rungs_that_do_not_ascend_are_refused(rungs: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.rungs"):
        digits_config(f"search.rungs={rungs}")
