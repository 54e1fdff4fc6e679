"""PruningEnv: the layer walk as a Gymnasium environment. One step decides one unit; an episode makes one plan."""

from collections.abc import Mapping
from math import exp, log
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from prune_env.common.errors import UserError
from prune_env.config import RunConfig
from prune_env.env.builders import load_model, load_splits, make_problem
from prune_env.env.observation import FEATURES, FloatArray
from prune_env.env.problem import PruningProblem


class PruningEnv(gymnasium.Env[FloatArray, FloatArray]):
    """Walks the free units of a network; the action says how much of each stays.

    Observation: ``Box(-1, 1, (16,))``, the features of the unit that the next action is for
    (`prune_env.env.observation.FEATURES`). Action: ``Box(-1, 1, (1,))``. With ``env.action: ratio`` it is the keep
    ratio, -1 being the least and 1 everything. With ``env.action: share`` [our choice] it multiplies the ratio that would
    spend the rest of the budget evenly, by exp(-1) to exp(1), so that 0 everywhere is the uniform plan. Widths are
    rounded, then clipped so that the finished plan meets the budget.

    With ``env.granularity: group`` the action is ``Box(-1, 1, (2,))``: the second number is the group count that the
    convolutions decided with the unit are to have, from 1 at -1 to ``env.max_groups`` at 1, evenly in logarithms. With
    ``env.action: pruning_rate`` (AGSPRL) the action is one number again: the kernel pruning rate, from 0 at -1 to
    1 - ``env.min_keep`` at 1, from which the groups follow.

    The reward is 0 until the last unit is decided, and then that of the finished plan. ``info`` holds ``unit``,
    ``width`` and, by convolution, ``groups`` after each step, and after the last also ``plan``, ``metrics`` and
    ``trial``. Later steps may narrow a unit further where no group reads its channels: ``plan`` has the last word.

    Args:
        config: Path of a YAML file, its settings as a mapping, or a RunConfig. Not needed with ``problem``.
        problem: A problem made before, so that several environments and searches share one evaluator.
        action: ``share``, ``ratio`` or ``pruning_rate``; None takes the configuration's, or ``share``.
        proposed_by: How the episodes' trials are recorded.

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
            splits = load_splits(settings)
            problem = make_problem(settings, splits, load_model(settings, splits))
            action = action or settings.env.action
        self.problem = problem
        if action not in (None, "share", "ratio", "pruning_rate"):
            raise UserError(f"action: {action!r} given; allowed are 'share', 'ratio' and 'pruning_rate'.")
        if action == "pruning_rate" and problem.groups is None:
            raise UserError("action: 'pruning_rate' given; it is for env.granularity: group alone.")
        self.action = action or "share"
        self.proposed_by = proposed_by
        self.observation_space = spaces.Box(-1.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_numbers(problem, self.action),), np.float32)
        self._draft = problem.builder(self.action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts an episode at the first free unit."""
        super().reset(seed=seed, options=options)
        self._draft = self.problem.builder(self.action)
        return self._observe(), {"unit": self.problem.budget.units[0].name}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Decides the width of one unit; the last one ends the episode with the plan's evaluation."""
        builder, number = self._draft, self._draft.number
        if builder.finished:
            raise RuntimeError("The episode is over: every unit is decided. Call reset() to start another.")
        keep = self._keep(float(action[0]))
        counts = self.action_space.shape == (2,)
        builder.decide(keep, self._most_groups ** ((float(action[1]) + 1.0) / 2.0) if counts else 1.0)
        info: dict[str, Any] = {"unit": builder.budget.units[number].name, "width": int(builder.widths[number])}
        info["groups"] = builder.groups_of(number)
        if not builder.finished:
            return self._observe(), 0.0, False, False, info
        trial = self.problem.attempt_plan(self.problem.built_plan(builder), self.proposed_by)
        info["plan"], info["trial"] = trial.plan, trial
        info["metrics"] = {
            "accuracy": trial.outcome.accuracy,
            "loss": trial.outcome.loss,
            "macs": trial.outcome.macs,
            "params": trial.outcome.params,
        }
        return self._observe(), trial.reward, True, False, info

    @property
    def limits(self) -> dict[str, float]:
        """The settings that the meaning of an action hangs on, by name."""
        if self.action == "pruning_rate":
            return {"env.min_keep": self.problem.min_keep}
        return {} if self.problem.groups is None else {"env.max_groups": self._most_groups}

    @property
    def number(self) -> int:
        """The number of the free unit that is being decided."""
        return self._draft.number

    def action_for(self, keep: float, groups: float = 1.0) -> FloatArray:
        """The action that asks for something of the unit that is being decided, or for the nearest to it.

        Args:
            keep: Its keep ratio, or the share of kernels where rates are decided, in (0, 1].
            groups: Into how many groups its convolutions should fall, where an action says that.

        Returns:
            float32, in [-1, 1], of the action's shape.
        """
        if self.action == "share":
            action = log(keep / max(self._draft.even, 1e-9))
        elif self.action == "ratio":
            action = 2.0 * keep - 1.0
        else:
            action = 2.0 * (1.0 - keep) / max(1.0 - self.problem.min_keep, 1e-9) - 1.0
        numbers = [action]
        if self.action_space.shape == (2,):
            numbers.append(2.0 * log(groups) / max(log(self._most_groups), 1e-9) - 1.0)
        return np.clip(np.array(numbers, dtype=np.float32), -1.0, 1.0)

    def _keep(self, action: float) -> float:
        """The share of channels (or of kernels) that an action asks for, before rounding and clipping."""
        if self.action == "share":
            return self._draft.even * exp(action)
        if self.action == "ratio":
            return (action + 1.0) / 2.0
        return 1.0 - (1.0 - self.problem.min_keep) * (action + 1.0) / 2.0

    @property
    def _most_groups(self) -> int:
        assert self.problem.groups is not None
        return self.problem.groups.grouping.most

    def _observe(self) -> FloatArray:
        builder = self._draft
        number = min(builder.number, len(builder.budget.units) - 1)
        return self.problem.observer.observe(number, builder.reduced, builder.even, builder.previous)


def action_numbers(problem: PruningProblem, action: str) -> int:
    """How many numbers an action has."""
    return 2 if problem.groups is not None and action != "pruning_rate" else 1


def _read(config: str | Path | Mapping[str, Any] | RunConfig) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return RunConfig.load(config) if isinstance(config, str | Path) else RunConfig.from_mapping(config)
