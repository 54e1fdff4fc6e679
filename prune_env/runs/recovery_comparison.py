"""Compares searches after fine-tuning: every run of a comparison, and the dense network, trained by one recipe."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prune_env.common.errors import RunError
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.training import FinetuneSection
from prune_env.config.trust import Trust
from prune_env.evaluation.pairs import Pairs
from prune_env.plan import PlannedCosts, PruningPlan
from prune_env.runs.finetuning import (
    FOLDER,
    TUNED,
    check_searched,
    finish_finetuning,
    resume_finetuning,
    start_finetuning,
)
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.starting import OnProgress, quietly
from prune_env.runs.summaries import RecoverySummary, named
from prune_env.runs.training import Step, TrainingListener
from prune_env.runs.training_folder import TrainingFolder
from prune_env.search.pools.whole import spread
from prune_env.tasks import make_task, quality_of

DENSE = "dense"
"""Name of the dense network that is trained on by the same recipe, in tables and as a folder beside the runs."""

REFERENCE = "uniform"
"""The search that the others are compared with, if it is among them."""


@dataclass(frozen=True)
class Recovered:
    """One network after fine-tuning.

    Attributes:
        search: The search whose plan was trained; `DENSE` for the dense network, trained on.
        seed: The seed.
        macs: Share of the dense MACs.
        params: Share of the dense params.
        before: Quality on the test set before fine-tuning, in [0, 1].
        quality: Quality on the test set after fine-tuning, in [0, 1].
        given: Quality of the dense network as given, on the test set, in [0, 1].
        seconds: Seconds of fine-tuning.
        right: Which test images the network gets right, bool [images]; None if the task does not say so.
    """

    search: str
    seed: int
    macs: float
    params: float
    before: float
    quality: float
    given: float
    seconds: float
    right: Tensor | None


@dataclass(frozen=True)
class Difference:
    """The mean difference of a search from another one, seed by seed.

    Attributes:
        mean: The mean over seeds.
        low: Lower end of the 95 % interval of Student's t; None for a single seed.
        high: Upper end.
    """

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, differences: Sequence[float]) -> "Difference":
        """The mean of one difference for each seed, with its interval."""
        from scipy.stats import ttest_1samp  # here, because the import takes a second

        mean = float(np.mean(differences))
        if len(differences) < 2 or np.ptp(differences) == 0.0:
            return cls(mean, None, None)
        low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
        return cls(mean, float(low), float(high))


@dataclass(frozen=True)
class RecoveryComparison:
    """Searches after fine-tuning.

    Attributes:
        model: The network's name.
        epochs: Epochs of each fine-tuning.
        reference: The search that the others are compared with.
        networks: One for each search and seed, and one dense network for each seed.
        quality: The task's name for its quality.
    """

    model: str
    epochs: int
    reference: str
    networks: Sequence[Recovered]
    quality: str

    def pairs(self, network: Recovered) -> Pairs | None:
        """A network against the reference of its seed, image by image; None if the task does not tell images."""
        reference = self._reference_of(network)
        if network.right is None or reference.right is None:
            return None
        return Pairs.of(network.right, reference.right)

    def difference(self, network: Recovered) -> float:
        """Quality of a network less that of the reference of its seed."""
        return network.quality - self._reference_of(network).quality

    def _reference_of(self, network: Recovered) -> Recovered:
        return next(one for one in self.networks if (one.search, one.seed) == (self.reference, network.seed))

    @property
    def by_search(self) -> dict[str, list[Recovered]]:
        """The networks of each search, one for each seed."""
        names = dict.fromkeys(network.search for network in self.networks)
        return {name: [network for network in self.networks if network.search == name] for name in names}

    def as_record(self) -> dict[str, Any]:
        """The comparison as plain data, for ``recovered.json``."""
        rows = []
        for network in self.networks:
            pairs = self.pairs(network)
            paired = {} if pairs is None else {**vars(pairs), "interval": pairs.interval, "p_value": pairs.p_value}
            rows.append(
                {
                    "search": network.search,
                    "seed": network.seed,
                    "macs": network.macs,
                    "params": network.params,
                    f"test_{self.quality}_before": network.before,
                    f"test_{self.quality}": network.quality,
                    f"dense_test_{self.quality}": network.given,
                    "seconds": network.seconds,
                    "difference": self.difference(network),
                    **paired,
                }
            )
        searches = {
            name: {
                f"test_{self.quality}": float(np.mean([one.quality for one in networks])),
                "difference": vars(Difference.of([self.difference(one) for one in networks])),
            }
            for name, networks in self.by_search.items()
        }
        return {
            "model": self.model,
            "epochs": self.epochs,
            "reference": self.reference,
            "networks": rows,
            "searches": searches,
        }


OnRecovered = Callable[[Recovered], None]


def compare_recovery(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    workers: int | None = 1,
    on_progress: OnProgress = quietly,
    on_recovered: OnRecovered = quietly,
) -> RecoveryComparison:
    """Fine-tunes every run of a finished comparison, and each seed's dense network, by the same recipe.

    All trainings share the number type of the first one, which is a dense network's, and the trainings of a seed share
    the teacher's outputs. Finished trainings are kept, and interrupted ones are resumed.

    Args:
        settings: The settings; ``finetune`` is the recipe.
        folder: The folder of the comparison (`compare_searches`).
        names: Names of the searches.
        seeds: The seeds.
        workers: How many trainings run at a time after the first, each in a process of its own with one thread; None
            for one on each processor of this machine.
        on_progress: Receives progress messages.
        on_recovered: Called with each network.

    Raises:
        RunError: If a run is not finished, or holds a fine-tuning by another recipe.
    """
    recipe, trust = settings.finetune, Trust.of(settings).also(names)
    if workers != 1 and recipe.threads is None:
        recipe = recipe.model_copy(update={"threads": 1})
    runs = {(seed, name): RunDirectory(folder / f"seed-{seed}" / name) for seed in seeds for name in (DENSE, *names)}
    for seed in seeds:
        if not runs[seed, DENSE].config.is_file():
            _make_dense_run(runs[seed, DENSE].root, runs[seed, names[0]], trust)
    jobs = [_Job(run, recipe, settings.finetune, trust) for run in runs.values()]
    for job in jobs:
        job.check()
    quality = quality_of(make_task(settings.task)).name
    first, *others = jobs
    first.train(on_progress)
    missing = [job.like(first, quality) for job in others if not job.folder.summary.is_file()]
    if workers == 1:
        for job in missing:
            job.train(on_progress)
    else:
        tasks = {job.folder.root: (job,) for job in missing}
        for number, _ in enumerate(spread(_Job.train, tasks, workers), start=1):
            on_progress(f"{number} of {len(missing)} trainings are finished")
    networks = [job.result(quality) for job in jobs]
    for network in networks:
        on_recovered(network)
    reference = REFERENCE if REFERENCE in names else names[0]
    return RecoveryComparison(settings.model.name, recipe.epochs, reference, networks, quality)


@dataclass(frozen=True)
class _Job:
    """The fine-tuning of one run.

    Attributes:
        run: The run.
        recipe: The settings of the training.
        given: The settings before anything that was open in them was decided.
        trust: The code that the settings of the run may name.
    """

    run: RunDirectory
    recipe: FinetuneSection
    given: FinetuneSection
    trust: Trust

    @property
    def folder(self) -> TrainingFolder:
        own = self.run.settings(trust=self.trust).finetune.epochs
        name = FOLDER if self.given.epochs == own else f"{FOLDER}-{self.given.epochs}"
        return TrainingFolder(self.run.root / name)

    def check(self) -> None:
        """Refuses a fine-tuning by another recipe; what is open in the recipe may be decided there."""
        if not self.folder.config.is_file():
            return
        theirs = self.folder.settings(trust=self.trust).finetune
        differing = [f"finetune.{key}" for key, value in self.given if value not in (None, getattr(theirs, key))]
        if differing:
            raise RunError(
                f"{str(self.folder.root)!r} holds a fine-tuning with other {', '.join(differing)}. Give another number "
                "of finetune.epochs, which has folders of its own, or another folder by run.directory=..."
            )

    def like(self, first: "_Job", quality: str) -> "_Job":
        """The job with the number type of a finished one; the layout stays open, as not every layout suits all."""
        dtype = first.summary(quality).execution.dtype
        return replace(self, recipe=self.recipe.model_copy(update={"dtype": dtype}))

    def summary(self, quality: str) -> RecoverySummary:
        """The record of the finished training."""
        kind: type[RecoverySummary] = named(RecoverySummary, quality)
        return read_record(self.folder.summary, kind)

    def train(self, on_progress: OnProgress = quietly) -> None:
        """Starts or resumes the training, to its end; does nothing where it is finished."""
        folder, place = self.folder, self.run.root
        if folder.summary.is_file():
            return

        def tell(text: str) -> None:
            on_progress(f"{place.parent.name}, {place.name}: {text}")

        def show(step: Step) -> None:
            tell(f"epoch {step.epoch} of {self.recipe.epochs}, step {step.done} of {step.of}")

        listener = TrainingListener(tell, show)
        if folder.config.is_file():
            tuning = resume_finetuning(self.run, folder.root.name, listener, self.trust)
        else:
            recipe = self.recipe.model_dump(mode="json")
            overrides = [f"finetune.{key}={json.dumps(value)}" for key, value in recipe.items()]
            tuning = start_finetuning(self.run, overrides, folder.root.name, listener, self.trust)
        finish_finetuning(tuning, listener, RunDirectory(place.parent).teacher)

    def result(self, quality: str) -> Recovered:
        """The network of the finished training."""
        summary = self.summary(quality)
        dense, before, after = summary.rows
        assert dense.test_quality is not None
        assert before.test_quality is not None
        assert after.test_quality is not None
        return Recovered(
            self.run.root.name,
            self.run.settings(trust=self.trust).seed,
            after.macs / dense.macs,
            after.params / dense.params,
            before.test_quality,
            after.test_quality,
            dense.test_quality,
            summary.seconds,
            self.folder.read_right(TUNED),
        )


def _make_dense_run(place: Path, like: RunDirectory, trust: Trust) -> None:
    """Makes a run whose plan cuts nothing, with the network, the data and the settings of another run."""
    check_searched(like)
    plan = PruningPlan.load(like.plan)
    units = [unit.model_copy(update={"kept": list(range(unit.channels))}) for unit in plan.units]
    dense: dict[str, Any] = {"units": units, "edits": {}, "budget": None}
    if plan.costs is not None:
        macs, params = plan.costs.dense_macs, plan.costs.dense_params
        dense["costs"] = PlannedCosts(dense_macs=macs, macs=macs, dense_params=params, params=params)
    with RunDirectory.making(place) as run:
        run.write_config(like.settings(trust=trust))
        run.write_bytes(run.plan, plan.model_copy(update=dense).to_json())
        for ours, theirs in ((run.splits, like.splits), (run.dense_weights, like.dense_weights)):
            if theirs.is_file():
                run.write_bytes(ours, theirs.read_bytes())
