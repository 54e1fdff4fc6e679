"""Which execution settings are the fastest for a network on this machine: measured once, and remembered."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

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
"""Least rank correlation with float32 of a number type that plans are ranked in."""

PLANS = 50
"""Plans that the rank correlation is over."""

ROUNDS = 5
"""Evaluations of each candidate of which the fastest counts, after one that does not."""

SECONDS = 1.0
"""What an evaluation that is timed may take: fewer images are taken until it does."""

MOST_IMAGES = 512
"""Reward images that are timed at most."""

SWEPT = ("layout", "folded", "threads", "batch")
"""The properties that are tried one after the other, in this order."""


@dataclass(frozen=True)
class ExecutionChooser:
    """Times execution settings on one network's own evaluations.

    Attributes:
        walk: The network's walk.
        budget: What plans may cost.
        reward: The reward set.
        calibration: The calibration set.
        device: Where the network runs.
        scores: One score per channel of each unit, as the search uses them.
        ranks: What an evaluator's outcome of a plan is worth.
        repair: As the search's evaluator has it.
        facts: What else decides how plans rank: a choice is remembered for these alone.
        on_progress: Hears in words what is going on.
        task: What the network is for.
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
        """The fastest execution settings among those that the config leaves open.

        One property is tried after the other [our choice], at the widths of the uniform plan; the candidates are timed
        in turn. bfloat16 must also rank plans as float32 does.

        Args:
            given: What the config asks for.
            evaluations: How many plans the search will evaluate; bfloat16 is not tried in a short one.
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
        """The best settings after one property was tried after the other; adds to the timings."""
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
        """The fast settings if they save time and rank plans as the exact ones do, or else the exact ones.

        Folded weights are rounded after recalibration; where that spoils the ranks, batch norms may be kept.
        """
        both = dict.fromkeys((fast, replace(fast, folded=False)))
        candidates = [candidate for candidate in both if candidate.folded in options["folded"]]
        seconds = self._time([exact, *candidates], sets)
        slow = seconds.get(exact, 0.0)
        faster = [candidate for candidate in candidates if is_faster(seconds.get(candidate, math.inf), slow)]
        if not faster:
            return exact, None
        plans = list(random_plans(self.walk, self.budget, self.scores, PLANS))
        expected = self._rewards(exact, plans)
        agreement = math.nan
        for candidate in faster:
            try:
                agreement = float(spearmanr(expected, self._rewards(candidate, plans)).statistic)
            except EvaluationError:  # not even finite
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
        """Enough of both sets, in their proportions, to time an evaluation within about `SECONDS`."""
        few = self.reward.first(16), self.calibration.first(16)
        # A network that runs in no settings at all says so when it is evaluated.
        seconds = min(self._time([replace(execution, batch=16)], few).values(), default=SECONDS)
        share = min(1.0, MOST_IMAGES / len(self.reward), SECONDS / (seconds * len(self.reward)))
        return (
            self.reward.first(max(16, round(share * len(self.reward)))),
            self.calibration.first(max(16, round(share * len(self.calibration)))),
        )

    def _time(
        self, candidates: Sequence[ExecutionSettings], sets: tuple[ImageSet, ImageSet]
    ) -> dict[ExecutionSettings, float]:
        """Seconds an image of each candidate that runs: its least of some rounds."""
        plan = self.walk.plan(self.budget.names(self.budget.uniform()))
        runs = {
            candidate: partial(run_with_threads, self._evaluator(sets, candidate), plan) for candidate in candidates
        }
        # Some modules know no such layout, or no such number type.
        seconds = time_in_turn(runs, self.device, ROUNDS, failures=(RuntimeError, EvaluationError))
        images = len(sets[0]) + len(sets[1])
        return {candidate: min(times) / images for candidate, times in seconds.items()}

    def _evaluator(self, sets: tuple[ImageSet, ImageSet], execution: ExecutionSettings) -> Evaluator:
        return Evaluator(self.walk, *sets, execution, self.device, self.repair, self.task)

    def _facts(self, options: Options) -> dict[str, Any]:
        """All that a choice depends on, besides the machine and the versions."""
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
    """One evaluation with the threads of the evaluator's settings."""
    before = torch.get_num_threads()
    torch.set_num_threads(evaluator.execution.threads or before)
    try:
        evaluator.run(plan)
    finally:
        torch.set_num_threads(before)


def random_plans(walk: LayerWalk, budget: Budget, scores: Scores, count: int, seed: int = 0) -> Iterator[PruningPlan]:
    """Plans of random widths at the budget, the best-scored channels kept."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield walk.plan(budget.names(budget.random(generator)), scores)
