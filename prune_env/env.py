"""PruningEnv: the layer walk as a Gymnasium environment. One step decides one unit; an episode makes one plan."""

from collections.abc import Mapping
from math import exp, log
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from prune_env.config import RunConfig
from prune_env.errors import UserError
from prune_env.observation import FEATURES, FloatArray
from prune_env.prepare import load_model, load_splits, make_task
from prune_env.task import PruningTask
from prune_env.unit import IntArray


class PruningEnv(gymnasium.Env[FloatArray, FloatArray]):
    """Walks the free units of a network; the action says how much of each stays.

    Observation: ``Box(-1, 1, (16,))``, the features of the unit that the next action is for
    (`prune_env.observation.FEATURES`). Action: ``Box(-1, 1, (1,))``. With ``env.action: ratio`` it is the keep ratio,
    -1 being the least and 1 everything. With ``env.action: share`` [our choice] it multiplies the ratio that would
    spend the rest of the budget evenly, by exp(-1) to exp(1), so that 0 everywhere is the uniform plan. Widths are
    rounded, then clipped so that the finished plan meets the budget.

    The reward is 0 until the last unit is decided, and then that of the finished plan. ``info`` holds ``unit`` and
    ``width`` after each step, and after the last also ``plan``, ``metrics`` and ``trial``.

    Args:
        config: Path of a YAML file, its settings as a mapping, or a RunConfig. Not needed with ``task``.
        task: A task made before, so that several environments and searches share one evaluator.
        action: ``share`` or ``ratio``; None takes the configuration's, or ``share``.
        kind: How the episodes' trials are recorded.

    Example:
        >>> import gymnasium, prune_env
        >>> env = gymnasium.make("prune_env/Pruning-v0", config="configs/digits.yaml")  # doctest: +SKIP
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | RunConfig | None = None,
        *,
        task: PruningTask | None = None,
        action: str | None = None,
        kind: str = "agent",
    ) -> None:
        if task is None:
            if config is None:
                raise TypeError("PruningEnv needs a config (a path, a mapping or a RunConfig) or a task.")
            settings = _read(config)
            splits = load_splits(settings)
            task = make_task(settings, splits, load_model(settings, splits))
            action = action or settings.env.action
        self.task = task
        if action not in (None, "share", "ratio"):
            raise UserError(f"action: {action!r} given; allowed are 'share' and 'ratio'.")
        self.relative = action != "ratio"
        self.kind = kind
        self.observation_space = spaces.Box(-1.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._widths: IntArray = self.task.budget.least.copy()
        self._undecided: IntArray = np.ones_like(self._widths)
        self._previous = 1.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts an episode at the first free unit."""
        super().reset(seed=seed, options=options)
        self._begin()
        return self._observe(), {"unit": self.task.budget.units[0].name}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Decides the width of one unit; the last one ends the episode with the plan's evaluation."""
        budget, number = self.task.budget, self._number
        if number >= len(budget.units):
            raise RuntimeError("The episode is over: every unit is decided. Call reset() to start another.")
        width = min(budget.allowed(number, self._keep(float(action[0])) * budget.channels[number]), self._cap())
        self._widths[number] = width
        self._undecided[number] = 0
        self._previous = width / int(budget.channels[number])
        self._number += 1
        info: dict[str, Any] = {"unit": budget.units[number].name, "width": width}
        if self._number < len(budget.units):
            return self._observe(), 0.0, False, False, info
        trial = self.task.attempt(self._widths.copy(), self.kind)
        info["plan"], info["trial"] = trial.plan, trial
        info["metrics"] = {
            "accuracy": trial.outcome.accuracy,
            "loss": trial.outcome.loss,
            "macs": trial.outcome.macs,
            "params": trial.outcome.params,
        }
        return self._observe(), trial.reward, True, False, info

    @property
    def number(self) -> int:
        """The number of the free unit that is being decided."""
        return self._number

    def action_for(self, width: int) -> float:
        """The action in [-1, 1] that asks for a width of the unit that is being decided, or the nearest to it."""
        keep = width / int(self.task.budget.channels[self._number])
        action = log(keep / max(self._even(), 1e-9)) if self.relative else 2.0 * keep - 1.0
        return min(1.0, max(-1.0, action))

    def _cap(self) -> int:
        return self.task.budget.cap(self._number, self._widths)

    def _keep(self, action: float) -> float:
        """The keep ratio that an action asks for, before rounding and clipping."""
        if self.relative:
            return self._even() * exp(action)
        return (action + 1.0) / 2.0

    def _even(self) -> float:
        return self.task.budget.even_ratio(self._widths, self._undecided)

    def _observe(self) -> FloatArray:
        budget = self.task.budget
        number = min(self._number, len(budget.units) - 1)
        widths = np.where(self._undecided == 1, budget.channels, self._widths)
        return self.task.observer.observe(number, widths, self._even(), self._previous)


def _read(config: str | Path | Mapping[str, Any] | RunConfig) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return RunConfig.load(config) if isinstance(config, str | Path) else RunConfig.from_mapping(config)
