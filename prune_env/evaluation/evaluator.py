"""The evaluator: measures a plan's quality on the reward set, after recalibrating the batch norms."""

import hashlib
import math
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prune_env.batch_norm.folding import find_fold_pairs
from prune_env.batch_norm.recalibration import recalibrate
from prune_env.common.copying import copied
from prune_env.common.errors import EvaluationError
from prune_env.data import Batch, ImageSet, moved
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.measuring import StopEarly, measure
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.plan import PruningPlan, apply_plan
from prune_env.rewards import Outcome
from prune_env.surgery import Repair
from prune_env.tasks import Task, make_task, quality_of
from prune_env.walk import LayerWalk


class Evaluator:
    """Evaluates plans of one network on images in memory; caches the outcome of each plan.

    Args:
        walk: The network's walk.
        reward: Images for the reward, never the test set.
        calibration: Images for the batch-norm statistics, disjoint from the reward and test sets.
        execution: Execution settings of `evaluate` and `run`.
        device: The device that the network runs on.
        repair: Replaces the sliced weights of layers that read cut channels; None keeps the sliced weights.
        task: The network's task; None for the default task.

    Attributes:
        task: The network's task.
        model: The dense network, on the device; must not be changed.
        hits: Evaluations answered from the cache.
        misses: Evaluations that were measured.
        images_left: Reward images that were skipped because evaluations stopped early.
        seconds: Seconds of each phase of the last evaluation: slicing, recalibration, folding, forward.
    """

    def __init__(
        self,
        walk: LayerWalk,
        reward: ImageSet,
        calibration: ImageSet,
        execution: ExecutionSettings | None = None,
        device: str | torch.device = "cpu",
        repair: Repair | None = None,
        task: Task | None = None,
    ) -> None:
        self.walk = walk
        self.task = task or make_task()
        self.repair = repair
        self.device = torch.device(device)
        self.execution = execution or ExecutionSettings()
        self.hits = self.misses = 0
        self.images_left = 0
        self.seconds: dict[str, float] = {}
        self._sets = reward, calibration
        self.model = copied(walk.model).to(self.device).to(memory_format=self.execution.memory_format).eval()
        # Recalibration may overwrite an input that only the batch norm reads, whether or not it is folded later.
        pairs = find_fold_pairs(walk.model, calibration.images[:2])
        self._sole_readers = [pair.norm for pair in pairs]
        dtype = self.execution.tensor_dtype(self.device)
        self._network = ReshapableNetwork(self.model, walk.units, dtype, pairs, self.execution.folded, repair)
        self.reward = _batches(reward, self.execution, self.device)
        self.calibration = _batches(calibration, self.execution, self.device)
        self._cache: dict[bytes, Outcome] = {}

    @property
    def images(self) -> int:
        """Size of the reward set."""
        return len(self._sets[0])

    @property
    def network(self) -> nn.Module:
        """The network in the shape and the execution settings of the last plan."""
        return self._network.model

    def dense(self) -> Outcome:
        """Evaluates the dense network."""
        return self.evaluate(self.walk.plan({}))

    def evaluate(self, plan: PruningPlan, stop_early: StopEarly | None = None) -> Outcome:
        """Returns a plan's outcome on the reward set, from the cache if the plan was evaluated before.

        An outcome on a part of the reward set is reused only if ``stop_early`` stops at its images again.

        Args:
            plan: The plan.
            stop_early: Decides after each batch whether to skip the remaining images; see `measure`.

        Raises:
            EvaluationError: If the quality or the loss is not finite.
        """
        key = plan_key(plan)
        known = self._cache.get(key)
        if known is not None and reusable(known, stop_early):
            self.hits += 1
            return known
        self._cache[key] = self.run(plan, stop_early)
        self.misses += 1
        return self._cache[key]

    def known(self, plan: PruningPlan, stop_early: StopEarly | None = None) -> Outcome | None:
        """Returns a plan's outcome from the cache, or None; measures nothing."""
        known = self._cache.get(plan_key(plan))
        return known if known is not None and reusable(known, stop_early) else None

    def __reduce__(self) -> tuple[object, ...]:
        """Sends what makes the evaluator: the copy in another process builds its own network, without the cache."""
        arguments = (self.walk, *self._sets, self.execution, self.device, self.repair, self.task)
        return type(self), arguments

    def forget(self) -> None:
        """Clears the cache."""
        self._cache.clear()

    def remember(self, plan: PruningPlan, outcome: Outcome) -> None:
        """Adds to the cache an outcome that an evaluator with the same settings measured earlier."""
        self._cache[plan_key(plan)] = outcome

    def run(self, plan: PruningPlan, stop_early: StopEarly | None = None) -> Outcome:
        """Evaluates a plan as `evaluate` does, but without the cache.

        In the given execution settings: cuts the network, recalibrates its batch norms, folds them, and measures the
        network on the reward set. `seconds` holds the time of each phase. A plan that cuts nothing keeps the dense
        network's statistics.
        """
        network = self.ready(plan)
        with self._timed("forward"), self.execution.computing(self.device):
            measured = measure(network, self.reward, self.task, stop_early)
        if not (math.isfinite(measured.quality) and math.isfinite(measured.loss)):
            raise EvaluationError(
                f"The network gives a loss of {measured.loss} and {quality_of(self.task).name} {measured.quality} on "
                f"the reward set with the widths {plan.widths}. Check the network's weights and the data's scaling."
            )
        left = self.images - measured.images
        self.images_left += left
        seen = measured.images if left else None
        return Outcome(measured.quality, measured.loss, plan.costs.macs, plan.costs.params, images=seen)

    def cut(self, plan: PruningPlan) -> nn.Module:
        """Returns the network in the plan's shape with the dense network's statistics; valid until the next plan."""
        return self._network.cut(plan.kept, plan.by_layer)

    def ready(self, plan: PruningPlan) -> nn.Module:
        """Returns the plan's network, recalibrated, in the execution settings; valid until the next plan."""
        with self._timed("slicing"):
            network = self.cut(plan)
        with self._timed("recalibration"), self.execution.computing(self.device):
            if _cuts(plan):
                recalibrate(network, (images for images, _ in self.calibration), self._sole_readers)
        with self._timed("folding"):
            self._network.settle()
        return network

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = time.perf_counter() - started

    def pruned(self, plan: PruningPlan) -> nn.Module:
        """Returns a new network for the plan: float32, not folded, batch norms recalibrated, in eval mode."""
        return self.repaired(plan, self.repair)

    def recalibrated(self, network: nn.Module) -> nn.Module:
        """Recalibrates a cut network on the evaluator's device, in place, and returns the network."""
        recalibrate(network, (images for images, _ in self._exact(self._sets[1])), self._sole_readers)
        return network

    def repaired(self, plan: PruningPlan, repair: Repair | None) -> nn.Module:
        """Returns a new network as `pruned` does, with the given repair instead of the evaluator's."""
        small = apply_plan(plan, self.model, repair)
        return self.recalibrated(small) if _cuts(plan) else small

    def measure(self, model: nn.Module) -> float:
        """Returns a network's quality on the reward set, in float32, for final results; `evaluate` may use bfloat16."""
        return measure(model, self._exact(self._sets[0]), self.task).quality

    def outcome_of(self, model: nn.Module, plan: PruningPlan) -> Outcome:
        """Returns the outcome of a plan whose network was trained, in float32 on the reward set."""
        found = measure(model, self._exact(self._sets[0]), self.task)
        return Outcome(found.quality, found.loss, plan.costs.macs, plan.costs.params)

    def _exact(self, images: ImageSet) -> list[Batch]:
        return _batches(images, ExecutionSettings(self.execution.layout, batch=self.execution.batch), self.device)


def reusable(known: Outcome, stop_early: StopEarly | None) -> bool:
    """Whether a known outcome of a plan is the one that measuring it again would give.

    Args:
        known: The outcome. One that was stopped early is reused only where it would be stopped there again: another
            search may need the full outcome.
        stop_early: When the new measurement would stop; None for never.
    """
    if known.images is None:
        return True
    return stop_early is not None and stop_early(round(known.images * known.quality), known.images)


def plan_key(plan: PruningPlan) -> bytes:
    """Returns a short digest of a plan's kept channels and edits, because the cache holds thousands of plans."""
    digest = hashlib.blake2b(digest_size=16)
    for kept in (unit.kept for unit in plan.units):
        digest.update(array("q", (len(kept), *kept)).tobytes())
    digest.update(repr(sorted((name, edit.model_dump()) for name, edit in plan.by_layer.items())).encode())
    return digest.digest()


def _cuts(plan: PruningPlan) -> bool:
    return bool(plan.edits) or any(len(unit.kept) < unit.channels for unit in plan.units)


def _batches(images: ImageSet, execution: ExecutionSettings, device: torch.device) -> list[Batch]:
    """Returns a set's batches on the device, in the layout and number type of the execution settings.

    Batches have sizes as equal as possible: a batch norm over 1x1 maps cannot compute a variance from one image.
    """
    dtype, layout = execution.tensor_dtype(device), execution.memory_format
    return [
        Batch(part.to(device, dtype).contiguous(memory_format=layout), moved(targets, device))
        for part, targets in images.even_batches(execution.batch or len(images))
    ]
