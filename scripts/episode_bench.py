"""What an episode is made of: the agent's episodes timed, and the bare forward passes of the same networks."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from agents.learners import Learner
from prune_env.common.errors import ConfigError, EvaluationError
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search.registry import SEARCHES

PARTS = ("slicing", "recalibration", "folding", "forward")
"""What an evaluation is made of."""


def clock(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def learner_named(name: str) -> type[Learner]:
    """The agent whose episodes are timed.

    Raises:
        ConfigError: If it is no agent that learns after each episode.
    """
    timed = {known: found for known in SEARCHES if (found := _timed(SEARCHES.find(known))) is not None}
    found = _timed(SEARCHES.find(name))
    if found is None:
        raise ConfigError(
            f"agent.name: {name} given, but an episode is timed with an agent that learns after each; allowed are "
            f"{', '.join(timed)}. Give agent.name={next(iter(timed))}."
        )
    return found


def _timed(search: type[Any]) -> type[Learner] | None:
    return search if issubclass(search, Learner) and search.learns_each_episode else None


class EpisodeBench:
    """One problem with its agent, and what each plan took.

    Args:
        settings: The run's settings.
        splits: The data.
        problem: The problem, ready for a search.
        episodes: How many episodes will be asked for.
    """

    def __init__(self, settings: RunConfig, splits: Splits, problem: PruningProblem, episodes: int) -> None:
        self.problem = problem
        self.name = settings.agent.name
        self.splits = splits
        self.seconds: dict[str, list[float]] = {}
        self._trial: Trial | None = None
        self._update = 0.0
        assert problem.observer  # the probes come first, as in a search
        problem.listeners.append(self._hear)
        self._steps = len(problem.budget.units)
        self._action = settings.granularity.action
        learner = learner_named(settings.agent.name)(problem, _timed_settings(settings, problem, episodes))
        self.agent = cast(Any, learner.agent)  # each has its own kind of `train`
        self._learn = self.agent.train
        self.agent.train = self._timed_update
        self.agent.learn(2 * self._steps)

    def _hear(self, trial: Trial) -> None:
        self._trial = trial

    def _timed_update(self, gradient_steps: int, batch_size: int = 64) -> None:
        self._update = clock(partial(self._learn, gradient_steps, batch_size))

    def episode(self) -> float:
        """One episode of the agent, its updates included; seconds."""
        return clock(lambda: self.agent.learn(self._steps, reset_num_timesteps=False))

    def round(self) -> Trial | None:
        """An episode, and then its plan again, run bare; its trial, None where the plan had been evaluated before."""
        self.episode()  # as in a search, an episode comes after an episode
        whole = self.episode()
        trial, evaluator = self._trial, self.problem.evaluator
        assert trial is not None
        if trial.cached:
            return None
        parts = {part: evaluator.seconds[part] for part in PARTS}
        evaluation, update = sum(parts.values()), self._update
        found = {
            "episode": whole,
            "evaluation": evaluation,
            **parts,
            "bookkeeping": trial.seconds - evaluation,
            "update": update,
            "steps": whole - update - trial.seconds,
            "step": self._step(),
            "limit": statistics.median([clock(self._bare) for _ in range(3)]),
        }
        for key, value in found.items():
            self.seconds.setdefault(key, []).append(value)
        return trial

    def _step(self) -> float:
        """Median seconds of a step that is not an episode's last."""
        env = PruningEnv(problem=self.problem, action=self._action)
        env.reset()
        actions = (
            np.random.default_rng(0).uniform(-1, 1, (self._steps, *(env.action_space.shape or ()))).astype(np.float32)
        )
        return statistics.median([clock(partial(env.step, action)) for action in actions[1:]] or [0.0])

    def _bare(self) -> None:
        """The network that the evaluator has in shape, over both sets, and nothing else."""
        evaluator = self.problem.evaluator
        with torch.no_grad(), evaluator.execution.computing(evaluator.device):
            for images, _ in (*evaluator.calibration, *evaluator.reward):
                output = evaluator.network(images)
        float(output.sum())  # a GPU works on after the call has returned

    def record(self) -> dict[str, Any]:
        """Medians over the plans, and their ratios.

        Raises:
            EvaluationError: If the agent only proposed plans that were evaluated before.
        """
        if not self.seconds:
            raise EvaluationError(
                f"Every one of the agent's plans had been evaluated before: {self._steps} free units leave too few. "
                "Ask for more --rounds, or protect fewer units."
            )
        middle = {key: statistics.median(values) for key, values in self.seconds.items()}
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
            "limit_s": middle["limit"],
            "evaluation_s": middle["evaluation"],
            "episode_s": middle["episode"],
            **ratios,
            "step_us": 1e6 * middle["step"],
            "slice_ms": 1e3 * middle["slicing"],
            "episodes_per_minute": 60.0 / middle["episode"],
            "execution": {**asdict(evaluator.execution), "threads": torch.get_num_threads()},
            "execution_reason": choice.reason,
            "agreement": choice.agreement,
            "phases_s": {phase: middle[phase] for phase in ("steps", "bookkeeping", *PARTS, "update")},
        }


def _timed_settings(settings: RunConfig, problem: PruningProblem, episodes: int) -> RunConfig:
    """Settings by which the agent learns from the second episode on, as it does for nearly all of a search."""
    given = {"preset": None, "demonstrations": False, "warmup_episodes": 1}
    agent = settings.agent.with_preset().model_copy(update=given)
    search = settings.search.model_copy(update={"evaluations": problem.probes + episodes + 2})
    return settings.model_copy(update={"agent": agent, "search": search})
