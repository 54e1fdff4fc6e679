"""Finds the fastest execution settings for a network on this machine; measures once and remembers the choice."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from prune_env.budget import Budget
from prune_env.common.errors import EvaluationError
from prune_env.common.fingerprint import fingerprint, weights_digest
from prune_env.common.timing import fastest, is_faster, time_in_turn
from prune_env.config.sections import ExecutionSection
from prune_env.data import ImageSet
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionChoice, ExecutionSettings
from prune_env.evaluation.execution_memory import machine_name, recall, remember
from prune_env.evaluation.execution_options import Options, fitting, open_options, usual
from prune_env.plan import PruningPlan
from prune_env.surgery import Repair
from prune_env.tasks import Task, make_task
from prune_env.walk import LayerWalk, Scores

AGREEMENT = 0.99
"""Lowest rank correlation with float32 at which plans may be ranked in bfloat16."""

PLANS = 50
"""Number of random plans for the rank correlation."""

ROUNDS = 5
"""Timed evaluations of each candidate, after one warm-up evaluation; the fastest counts."""

SECONDS = 1.0
"""Seconds that a timed evaluation should take at most; larger sets are shortened."""

MOST_IMAGES = 512
"""Largest number of reward images in a timed evaluation."""

SWEPT = ("layout", "folded", "threads", "batch")
"""The properties that are varied one at a time, in this order."""


@dataclass(frozen=True)
class ExecutionChooser:
    """Times evaluations of one network in different execution settings.

    Attributes:
        walk: The network's walk.
        budget: The budget of the plans.
        reward: The reward set.
        calibration: The calibration set.
        device: The device that the network runs on.
        scores: One score per channel of each unit, as in the search.
        ranks: Returns the reward of a plan that an evaluator measures.
        repair: The repair of the search's evaluator.
        facts: Further settings that affect the ranks of plans; a remembered choice is reused only if they are equal.
        on_progress: Receives progress messages.
        task: The network's task.
    """

    walk: LayerWalk
    budget: Budget
    reward: ImageSet
    calibration: ImageSet
    device: torch.device
    scores: Scores
    ranks: Callable[[Evaluator, PruningPlan], float]
    repair: Repair | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    on_progress: Callable[[str], None] = lambda _: None
    task: Task = field(default_factory=make_task)

    def choose(self, given: ExecutionSection, evaluations: int) -> ExecutionChoice:
        """Returns the fastest execution settings among those that the config leaves open.

        Properties are varied one at a time [our choice], at the widths of the uniform plan; the candidates are timed
        in turn. bfloat16 must also rank plans as float32 does.

        Args:
            given: The config's execution section.
            evaluations: Plans that the search will evaluate; a short search stays in float32.
        """
        options = open_options(given, evaluations)
        if all(len(values) == 1 for values in options.values()):
            return ExecutionChoice(usual(options), "given")
        facts = self._facts(options)
        choice = recall(facts, options)
        if choice is None:
            choice = self._measured(options)
            remember(facts, choice)
        return choice

    def _measured(self, options: Options) -> ExecutionChoice:
        timings: list[tuple[ExecutionSettings, float]] = []
        sets = self._excerpt(usual(options))
        options = fitting(options, len(sets[0]))
        best = self._swept(usual(options), options, sets, timings)
        agreement = None
        if "bfloat16" in options["dtype"][1:]:
            fast = self._swept(replace(best, dtype="bfloat16"), options, sets, timings)
            best, agreement = self._agreeing(best, fast, options, sets)
        return ExecutionChoice(best, "measured", tuple(timings), agreement)

    def _swept(
        self,
        best: ExecutionSettings,
        options: Options,
        sets: tuple[ImageSet, ImageSet],
        timings: list[tuple[ExecutionSettings, float]],
    ) -> ExecutionSettings:
        """Returns the best settings after varying one property at a time; extends ``timings``."""
        for key in SWEPT:
            candidates = dict.fromkeys((best, *(replace(best, **{key: value}) for value in options[key])))
            if len(candidates) == 1:
                continue
            self.on_progress(f"measuring the fastest execution settings: {key}, in {best.dtype}")
            seconds = self._time(list(candidates), sets)
            timings += seconds.items()
            best = fastest(seconds, best)
        return best

    def _agreeing(
        self, exact: ExecutionSettings, fast: ExecutionSettings, options: Options, sets: tuple[ImageSet, ImageSet]
    ) -> tuple[ExecutionSettings, float | None]:
        """Returns the fast settings if they save time and rank plans as the exact settings do, else the exact settings.

        bfloat16 rounds folded weights after recalibration, which can change the ranks. So the fast settings are also
        tried without folding.
        """
        both = dict.fromkeys((fast, replace(fast, folded=False)))
        candidates = [candidate for candidate in both if candidate.folded in options["folded"]]
        seconds = self._time([exact, *candidates], sets)
        slow = seconds.get(exact, 0.0)
        faster = [candidate for candidate in candidates if is_faster(seconds.get(candidate, math.inf), slow)]
        if not faster:
            return exact, None
        from scipy.stats import spearmanr  # here, because the import takes a second

        plans = list(random_plans(self.walk, self.budget, self.scores, PLANS))
        expected = self._rewards(exact, plans)
        agreement = math.nan
        for candidate in faster:
            try:
                agreement = float(spearmanr(expected, self._rewards(candidate, plans)).statistic)
            except EvaluationError:  # quality or loss is not finite
                continue
            if agreement >= AGREEMENT:
                return candidate, agreement
        return exact, agreement if math.isfinite(agreement) else None

    def _rewards(self, execution: ExecutionSettings, plans: Sequence[PruningPlan]) -> list[float]:
        evaluator = self._evaluator((self.reward, self.calibration), execution)
        rewards = []
        for number, plan in enumerate(plans, start=1):
            self.on_progress(
                f"checking that bfloat16 ranks plans as float32 does: {execution.dtype}, {number} of {len(plans)}"
            )
            rewards.append(self.ranks(evaluator, plan))
        return rewards

    def _excerpt(self, execution: ExecutionSettings) -> tuple[ImageSet, ImageSet]:
        """Shortens both sets by the same share, so that a timed evaluation takes about `SECONDS` at most."""
        few = self.reward.first(16), self.calibration.first(16)
        # A network that fails in all settings raises its error at the first evaluation.
        seconds = min(self._time([replace(execution, batch=16)], few).values(), default=SECONDS)
        share = min(1.0, MOST_IMAGES / len(self.reward), SECONDS / (seconds * len(self.reward)))
        return (
            self.reward.first(max(16, round(share * len(self.reward)))),
            self.calibration.first(max(16, round(share * len(self.calibration)))),
        )

    def _time(
        self, candidates: Sequence[ExecutionSettings], sets: tuple[ImageSet, ImageSet]
    ) -> dict[ExecutionSettings, float]:
        """Returns seconds per image of each candidate that runs: the fastest round."""
        plan = self.walk.plan(self.budget.names(self.budget.uniform()))
        runs = {
            candidate: partial(run_with_threads, self._evaluator(sets, candidate), plan) for candidate in candidates
        }
        # Some modules do not support every layout or number type.
        seconds = time_in_turn(runs, self.device, ROUNDS, failures=(RuntimeError, EvaluationError))
        images = len(sets[0]) + len(sets[1])
        return {candidate: min(times) / images for candidate, times in seconds.items()}

    def _evaluator(self, sets: tuple[ImageSet, ImageSet], execution: ExecutionSettings) -> Evaluator:
        return Evaluator(self.walk, *sets, execution, self.device, self.repair, self.task)

    def _facts(self, options: Options) -> dict[str, Any]:
        """Returns everything that a choice depends on, except the versions."""
        budget = self.budget
        return {
            "device": machine_name(self.device),
            "network": fingerprint(self.walk.model),
            "weights": weights_digest(self.walk.model),
            "units": [unit.name for unit in budget.units],
            "budget": [budget.metric, budget.limit, budget.round_to, *budget.least.tolist()],
            "sets": [len(self.reward), len(self.calibration)],
            **self.facts,
            "input": list(self.reward.images.shape[1:]),
            "options": options,
        }


def run_with_threads(evaluator: Evaluator, plan: PruningPlan) -> None:
    """Evaluates a plan with the number of threads in the evaluator's settings, then restores the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(evaluator.execution.threads or before)
    try:
        evaluator.run(plan)
    finally:
        torch.set_num_threads(before)


def random_plans(walk: LayerWalk, budget: Budget, scores: Scores, count: int, seed: int = 0) -> Iterator[PruningPlan]:
    """Yields plans with random widths at the budget; each unit keeps its best-scored channels."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield walk.plan(budget.names(budget.random(generator)), scores)
