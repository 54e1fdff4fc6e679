"""PruningEnv: the layer walk as a Gymnasium environment. A step decides one unit; an episode makes one plan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from prune_env.config import RunConfig
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits, refuse_sparse_training
from prune_env.env.observation import FEATURES, FloatArray
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal


class PruningEnv(gymnasium.Env[FloatArray, FloatArray]):
    """Steps through the free units of a network; each action decides the width of one unit.

    Observation: ``Box(-1, 1, (16,))``, the features of the unit that the next action decides
    (`prune_env.env.observation.FEATURES`). Action: ``Box(-1, 1, (n,))``, one number for each of the granularity's
    action dimensions (`Granularity.actions`). Whole channels need one number. With ``granularity.action: ratio`` this
    number is the keep ratio: -1 is the least ratio and 1 keeps all channels. With ``granularity.action: share`` [our
    choice] it is a factor from exp(-1) to exp(1) on the keep ratio that spends the rest of the budget evenly, so that
    0 in every step gives the uniform plan. Widths are rounded, then clipped so that the finished plan meets the budget.

    The reward is 0 until the last step, which returns the reward of the finished plan. After each step, ``info`` holds
    ``unit``, ``width`` and the granularity's facts about the unit (`PlanBuilder.decided`); after the last step it also
    holds ``plan``, ``metrics`` and ``trial``. Later steps may narrow a unit further if no layer reads some of its
    channels, so only ``plan`` has the final widths.

    Args:
        config: Path of a YAML file, its settings as a mapping, or a RunConfig. Ignored if ``problem`` is given.
        problem: An existing problem, so that several environments and searches share one evaluator.
        action: The meaning of an action, as in ``granularity.action``; None takes the configuration's.
        proposed_by: The name under which the episodes' trials are recorded.

    Example:
        >>> import gymnasium, prune_env
        >>> env = gymnasium.make("prune_env/Pruning-v0", config="configs/digits.yaml")  # doctest: +SKIP
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | RunConfig | None = None,
        *,
        problem: PruningProblem | None = None,
        action: str | None = None,
        proposed_by: str = "agent",
    ) -> None:
        if problem is None:
            if config is None:
                raise TypeError("PruningEnv needs a config (a path, a mapping or a RunConfig) or a problem.")
            settings = _read(config)
            refuse_sparse_training(settings)
            splits = load_splits(settings)
            problem = build_problem(settings, splits, load_model(settings, splits))
        self.problem = problem
        self.granularity = problem.granularity if action is None else problem.granularity.with_action(action)
        self.proposed_by = proposed_by
        self.dimensions = self.granularity.actions()
        self.observation_space = spaces.Box(-1.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.dimensions),), np.float32)
        self._builder = self.granularity.builder(problem.budget)
        self._numbers: list[list[float]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts an episode at the first free unit; returns its observation and ``info``."""
        super().reset(seed=seed, options=options)
        self._builder = self.granularity.builder(self.problem.budget)
        self._numbers = []
        return self.observation(), {"unit": self.problem.budget.units[0].name}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Decides the width of one unit. The last step evaluates the plan and ends the episode."""
        info = self.decide(action)
        if not self._builder.finished:
            return self.observation(), 0.0, False, False, info
        trial = self.problem.attempt_plan(self.problem.built_plan(self._builder), self.proposed_by)
        info["plan"], info["trial"] = trial.plan, trial
        info["metrics"] = {
            trial.quality_name: trial.outcome.quality,
            "loss": trial.outcome.loss,
            "macs": trial.outcome.macs,
            "params": trial.outcome.params,
        }
        return self.observation(), trial.reward, True, False, info

    def decide(self, action: FloatArray) -> dict[str, Any]:
        """Decides the width of one unit as `step` does, but evaluates nothing; returns the step's ``info``.

        Raises:
            RuntimeError: If every unit is decided.
        """
        builder, number = self._builder, self._builder.number
        if builder.finished:
            raise RuntimeError("The episode is over: every unit is decided. Call reset() to start another.")
        even = builder.even
        numbers = [one.decode(float(value), even) for one, value in zip(self.dimensions, action, strict=True)]
        builder.decide(numbers)
        self._numbers.append(numbers)
        unit, width = builder.budget.units[number].name, int(builder.widths[number])
        return {"unit": unit, "width": width, **builder.decided(number)}

    def proposal(self, note: Any = None) -> Proposal:
        """The finished episode as a search's proposal, which carries a note of the search."""
        plan = self.problem.built_plan(self._builder)
        return Proposal(numbers=np.array(self._numbers), action=self.granularity.action, plan=plan, note=note)

    @property
    def number(self) -> int:
        """Number of the free unit that the next action decides."""
        return self._builder.number

    def action_for(self, numbers: Sequence[float]) -> FloatArray:
        """The action that decides the given numbers for the current unit, or the nearest possible ones.

        Args:
            numbers: The wanted decision, one number for each of the granularity's action dimensions.

        Returns:
            The action, float32 [action dimensions], in [-1, 1].
        """
        even = self._builder.even
        action = [one.encode(float(number), even) for one, number in zip(self.dimensions, numbers, strict=True)]
        return np.clip(np.array(action, dtype=np.float32), -1.0, 1.0)

    def observation(self) -> FloatArray:
        """The observation of the unit that the next action decides; of the last unit after the episode."""
        builder = self._builder
        number = min(builder.number, len(builder.budget.units) - 1)
        return self.problem.observer.observe(number, builder.reduced, builder.even, builder.previous)


def _read(config: str | Path | Mapping[str, Any] | RunConfig) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return RunConfig.load(config) if isinstance(config, str | Path) else RunConfig.from_mapping(config)
