"""Which form is the fastest for a network on this machine: measured once, and remembered."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from prune_env.budget import Budget
from prune_env.common.errors import EvaluationError
from prune_env.common.fingerprint import fingerprint, weights_digest
from prune_env.config.sections import ExecutionSection
from prune_env.data import ImageSet
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.execution_memory import ExecutionChoice, machine_name, recall, remember
from prune_env.plan import PruningPlan
from prune_env.surgery import Repair
from prune_env.tasks import Task, make_task
from prune_env.walk import LayerWalk, Scores

AGREEMENT = 0.99
"""Least rank correlation with float32 of a number type that plans are ranked in."""

PLANS = 50
"""Plans that the rank correlation is over."""

LONG_SEARCH = 150
"""Evaluations from which a faster number type earns back the plans that show its agreement [our choice]."""

GAIN = 0.95
"""A form replaces a more usual one if it takes at most this share of its time [our choice]."""

USUAL_THREADS = torch.get_num_threads()
"""Torch's own choice, before a form is chosen."""

ROUNDS = 5
SECONDS = 1.0
MOST_IMAGES = 512
BATCHES = (256, 128, 64, 32, 16, 512)
EVERY = ("layout", "folded", "threads", "batch")


@dataclass(frozen=True)
class ExecutionChooser:
    """Measures forms on one network's own evaluations.

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
        tell: Hears in words what is going on.
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
    tell: Callable[[str], None] = lambda _: None
    task: Task = field(default_factory=make_task)

    def choose(self, given: ExecutionSection, evaluations: int) -> ExecutionChoice:
        """The fastest form among those that the settings leave open.

        One property is tried after the other [our choice], at the widths of the uniform plan; the forms that compete
        are timed in turn. bfloat16 must also rank plans as float32 does.

        Args:
            given: What the settings ask for.
            evaluations: How many plans the search will evaluate; bfloat16 is not looked at in a short one.
        """
        options = self._options(given, evaluations)
        if all(len(values) == 1 for values in options.values()):
            return ExecutionChoice(_first(options), "given")
        facts = self._facts(options)
        choice = recall(facts, options)
        if choice is None:
            choice = self._measured(options)
            remember(facts, choice)
        return choice

    def _options(self, given: ExecutionSection, evaluations: int) -> dict[str, tuple[Any, ...]]:
        options: dict[str, tuple[Any, ...]] = {
            "layout": ("channels_last", "contiguous"),
            "folded": (True, False),
            "threads": tuple(dict.fromkeys((USUAL_THREADS, 1))),
            "dtype": ("float32", "bfloat16") if evaluations >= LONG_SEARCH else ("float32",),
            "batch": BATCHES,
        }
        return {key: values if (one := getattr(given, key)) is None else (one,) for key, values in options.items()}

    def _measured(self, options: dict[str, tuple[Any, ...]]) -> ExecutionChoice:
        timings: list[tuple[ExecutionSettings, float]] = []
        start = _first(options)
        sets = self._excerpt(start)
        # A batch that is no larger than what is timed: more would be the same forward pass under another name.
        options = {**options, "batch": _fitting(options["batch"], len(sets[0]))}
        start = replace(start, batch=options["batch"][0])
        best = self._swept(start, options, EVERY, sets, timings)
        agreement = None
        if "bfloat16" in options["dtype"][1:]:
            fast = self._swept(replace(best, dtype="bfloat16"), options, EVERY, sets, timings)
            best, agreement = self._agreeing(best, fast, options, sets)
        return ExecutionChoice(best, "measured", tuple(timings), agreement)

    def _swept(
        self,
        best: ExecutionSettings,
        options: dict[str, tuple[Any, ...]],
        keys: Sequence[str],
        sets: tuple[ImageSet, ImageSet],
        timings: list[tuple[ExecutionSettings, float]],
    ) -> ExecutionSettings:
        """The best form after one property was tried after the other."""
        for key in keys:
            forms = dict.fromkeys((best, *(replace(best, **{key: value}) for value in options[key])))
            if len(forms) == 1:
                continue
            self.tell(f"measuring the fastest form of the forward passes: {key}, in {best.dtype}")
            times = self._time(list(forms), sets)
            timings += times.items()
            fastest = min(times, key=lambda form: times[form], default=best)
            if times.get(fastest, 0.0) <= GAIN * times.get(best, math.inf):
                best = fastest
        return best

    def _agreeing(
        self,
        exact: ExecutionSettings,
        fast: ExecutionSettings,
        options: dict[str, tuple[Any, ...]],
        sets: tuple[ImageSet, ImageSet],
    ) -> tuple[ExecutionSettings, float | None]:
        """The fast form if it saves time and ranks plans as the exact one does, or else the exact one.

        Folded weights are rounded after recalibration; where that spoils the ranks, batch norms may be kept.
        """
        forms = [form for form in {fast: 0, replace(fast, folded=False): 1} if form.folded in options["folded"]]
        times = self._time([exact, *forms], sets)
        faster = [form for form in forms if times.get(form, math.inf) <= GAIN * times.get(exact, 0.0)]
        if not faster:
            return exact, None
        plans = list(random_plans(self.walk, self.budget, self.scores, PLANS))
        expected = self._rewards(exact, plans)
        agreement = math.nan
        for form in faster:
            try:
                agreement = float(spearmanr(expected, self._rewards(form, plans)).statistic)
            except EvaluationError:  # not even finite
                continue
            if agreement >= AGREEMENT:
                return form, agreement
        return exact, agreement if math.isfinite(agreement) else None

    def _rewards(self, form: ExecutionSettings, plans: Sequence[PruningPlan]) -> list[float]:
        evaluator = Evaluator(self.walk, self.reward, self.calibration, form, self.device, self.repair, self.task)
        rewards = []
        for number, plan in enumerate(plans):
            self.tell(f"checking that bfloat16 ranks plans as float32 does: {form.dtype}, {number + 1} of {len(plans)}")
            rewards.append(self.ranks(evaluator, plan))
        return rewards

    def _excerpt(self, form: ExecutionSettings) -> tuple[ImageSet, ImageSet]:
        """Enough of both sets, in their proportions, to time an evaluation within about `SECONDS`."""
        few = self.reward.first(16), self.calibration.first(16)
        # A network that runs in no form at all says so when it is evaluated.
        seconds = min(self._time([replace(form, batch=16)], few).values(), default=SECONDS)
        share = min(1.0, MOST_IMAGES / len(self.reward), SECONDS / (seconds * len(self.reward)))
        return (
            self.reward.first(max(16, round(share * len(self.reward)))),
            self.calibration.first(max(16, round(share * len(self.calibration)))),
        )

    def _time(
        self, forms: Sequence[ExecutionSettings], sets: tuple[ImageSet, ImageSet]
    ) -> dict[ExecutionSettings, float]:
        """Seconds an image of each form that runs, taken in turn: its least of some rounds."""
        plan = self.walk.plan(self.budget.names(self.budget.uniform()))
        evaluators = {form: Evaluator(self.walk, *sets, form, self.device, self.repair, self.task) for form in forms}
        seconds: dict[ExecutionSettings, list[float]] = {form: [] for form in forms}
        for turn in range(1 + ROUNDS):
            for form, evaluator in list(evaluators.items()):
                started = time.perf_counter()
                try:
                    run_with_threads(evaluator, plan)
                except (RuntimeError, EvaluationError):  # some module knows no such layout, or no such number type
                    del evaluators[form], seconds[form]
                    continue
                if turn:
                    seconds[form].append(time.perf_counter() - started)
        images = len(sets[0]) + len(sets[1])
        return {form: min(times) / images for form, times in seconds.items()}

    def _facts(self, options: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
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
    """One evaluation with the threads of the evaluator's form."""
    before = torch.get_num_threads()
    torch.set_num_threads(evaluator.form.threads or before)
    try:
        evaluator.run(plan)
    finally:
        torch.set_num_threads(before)


def random_plans(walk: LayerWalk, budget: Budget, scores: Scores, count: int, seed: int = 0) -> Iterator[PruningPlan]:
    """Plans of random widths at the budget, the best-scored channels kept."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield walk.plan(budget.names(budget.random(generator)), scores)


def _first(options: dict[str, tuple[Any, ...]]) -> ExecutionSettings:
    return ExecutionSettings(**{key: values[0] for key, values in options.items()})


def _fitting(batches: Sequence[int], images: int) -> tuple[int, ...]:
    """Those of the batch sizes that a forward pass over so many images can have; the least of them at any rate."""
    return tuple(size for size in batches if size <= images) or (min(batches),)
