"""Times the parts of the agent's episodes, and the bare forward passes of the same networks."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from prune_env.agents.learners import Learner
from prune_env.common.errors import ConfigError, EvaluationError
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search.registry import SEARCHES

PARTS = ("slicing", "recalibration", "folding", "forward")
"""The timed parts of an evaluation."""


def clock(call: Callable[[], object]) -> float:
    """Duration of a call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def learner_named(name: str) -> type[Learner]:
    """The class of the agent whose episodes are timed.

    Raises:
        ConfigError: If the search is not an agent that learns after each episode.
    """
    timed = {known: found for known in SEARCHES if (found := _timed(SEARCHES.find(known))) is not None}
    found = _timed(SEARCHES.find(name))
    if found is None:
        raise ConfigError(
            f"agent.name: {name} given; only agents that learn after each episode can be timed, and allowed are "
            f"{', '.join(timed)}. Give agent.name={next(iter(timed))}."
        )
    return found


def _timed(search: type[Any]) -> type[Learner] | None:
    return search if issubclass(search, Learner) and search.learns_each_episode else None


class EpisodeBench:
    """A problem with its agent, and the times of each plan.

    Args:
        settings: The run's settings.
        splits: The data.
        problem: The problem.
        episodes: Number of episodes to run later.
    """

    def __init__(self, settings: RunConfig, splits: Splits, problem: PruningProblem, episodes: int) -> None:
        self.problem = problem
        self.name = settings.agent.name
        self.splits = splits
        self.seconds: dict[str, list[float]] = {}
        self._trial: Trial | None = None
        self._update = 0.0
        assert problem.observer  # run the probes first, as in a search
        self._steps = len(problem.budget.units)
        self._action = settings.granularity.action
        self.learner = learner_named(settings.agent.name)(problem, _timed_settings(settings, problem, episodes))
        self.agent = cast(Any, self.learner.agent)  # the `train` methods have different signatures
        self._learn = self.agent.train
        self.agent.train = self._timed_update
        for _ in range(2):
            self._episode()

    def _timed_update(self, gradient_steps: int, batch_size: int = 64) -> None:
        self._update = clock(partial(self._learn, gradient_steps, batch_size))

    def episode(self) -> float:
        """Runs one episode of the agent with its updates; returns its duration in seconds."""
        return clock(self._episode)

    def _episode(self) -> None:
        proposal = self.learner.ask()
        assert proposal is not None
        assert proposal.plan is not None
        self._trial = self.problem.attempt_plan(proposal.plan, self.name)
        self.learner.tell(proposal, self._trial)

    def round(self) -> Trial | None:
        """Times an episode, then the bare forward passes of its plan; returns the trial, None for a cached plan."""
        self.episode()  # as in a search, the timed episode follows another one
        whole = self.episode()
        trial, evaluator = self._trial, self.problem.evaluator
        assert trial is not None
        if trial.cached:
            return None
        parts = {part: evaluator.seconds[part] for part in PARTS}
        evaluation, update = sum(parts.values()), self._update
        times = {
            "episode": whole,
            "evaluation": evaluation,
            **parts,
            "bookkeeping": trial.seconds - evaluation,
            "update": update,
            "steps": whole - update - trial.seconds,
            "step": self._step(),
            "limit": statistics.median([clock(self._bare) for _ in range(3)]),
        }
        for key, value in times.items():
            self.seconds.setdefault(key, []).append(value)
        return trial

    def _step(self) -> float:
        """Median duration in seconds of a step that does not end an episode."""
        env = PruningEnv(problem=self.problem, action=self._action)
        env.reset()
        actions = (
            np.random.default_rng(0).uniform(-1, 1, (self._steps, *(env.action_space.shape or ()))).astype(np.float32)
        )
        return statistics.median([clock(partial(env.step, action)) for action in actions[1:]] or [0.0])

    def _bare(self) -> None:
        """Runs only the forward passes of the evaluator's current network over both sets."""
        evaluator = self.problem.evaluator
        with torch.no_grad(), evaluator.execution.computing(evaluator.device):
            for images, _ in (*evaluator.calibration, *evaluator.reward):
                output = evaluator.network(images)
        float(output.sum())  # wait for the GPU, which computes asynchronously

    def record(self) -> dict[str, Any]:
        """Medians over the plans, and their ratios.

        Raises:
            EvaluationError: If the agent proposed only cached plans.
        """
        if not self.seconds:
            raise EvaluationError(
                f"The agent proposed only plans that were evaluated before: {self._steps} free units allow too few "
                "plans. Give more --rounds, or protect fewer units."
            )
        medians = {key: statistics.median(values) for key, values in self.seconds.items()}
        ratios = {
            f"{key}_over_limit": statistics.median(np.divide(self.seconds[key], self.seconds["limit"]).tolist())
            for key in ("evaluation", "episode")
        }
        evaluator, choice = self.problem.evaluator, self.problem.execution_choice
        assert choice is not None
        return {
            "model": self.problem.provenance["model"],
            "agent": self.name,
            "units": self._steps,
            "images": [evaluator.images, len(self.splits.calibration_indices)],
            "plans": len(self.seconds["limit"]),
            "limit_s": medians["limit"],
            "evaluation_s": medians["evaluation"],
            "episode_s": medians["episode"],
            **ratios,
            "step_us": 1e6 * medians["step"],
            "slice_ms": 1e3 * medians["slicing"],
            "episodes_per_minute": 60.0 / medians["episode"],
            "execution": {**asdict(evaluator.execution), "threads": torch.get_num_threads()},
            "execution_reason": choice.reason,
            "agreement": choice.agreement,
            "phases_s": {phase: medians[phase] for phase in ("steps", "bookkeeping", *PARTS, "update")},
        }


def _timed_settings(settings: RunConfig, problem: PruningProblem, episodes: int) -> RunConfig:
    """Lets the agent learn from the second episode on, as in nearly all episodes of a search."""
    given = {"preset": None, "demonstrations": False, "warmup_episodes": 1}
    agent = settings.agent.with_preset().model_copy(update=given)
    search = settings.search.model_copy(update={"evaluations": problem.probes + episodes + 2})
    return settings.model_copy(update={"agent": agent, "search": search})
