"""The evaluator: a plan's quality on the reward set, after its batch-norm statistics are measured anew."""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from prune_env.batch_norm.folding import find_fold_pairs
from prune_env.batch_norm.recalibration import recalibrate
from prune_env.common.errors import EvaluationError
from prune_env.data import Batch, ImageSet, moved
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.measuring import StopEarly, measure
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.plan import PruningPlan, apply_plan
from prune_env.surgery import Repair
from prune_env.tasks import Task, make_task, quality_of
from prune_env.walk import LayerWalk
from rewards import Outcome


class Evaluator:
    """Evaluates plans of one network on images in memory; the same plan is never evaluated twice.

    Args:
        walk: The network's walk.
        reward: Images for the reward, never the test set.
        calibration: Images for the batch-norm statistics, disjoint from the others.
        execution: How the forward passes run while plans are ranked.
        device: Where the network runs.
        repair: What gives the layers that read cut channels other weights; None leaves them sliced.
        task: What the network is for; None for the default task.

    Attributes:
        task: What the network is for.
        model: The dense network, on the device; not to be changed.
        hits: How many plans were asked for again.
        misses: How many plans were really evaluated.
        images_left: How many reward images were not looked at because plans were given up.
        seconds: How long the last evaluation's phases took: slicing, recalibration, folding, forward.
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
        self.model = copy.deepcopy(walk.model).to(self.device).to(memory_format=self.execution.memory_format).eval()
        # Where nothing else reads a batch norm's input, recalibration may overwrite it, folded or not.
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
        """The network in the shape of the plan that was run last, as it was run."""
        return self._network.model

    def dense(self) -> Outcome:
        """The outcome of the network as it is."""
        return self.evaluate(self.walk.plan({}))

    def evaluate(self, plan: PruningPlan, stop_early: StopEarly | None = None) -> Outcome:
        """What a plan is worth on the reward set; measured when it is first asked for.

        Args:
            plan: The plan.
            stop_early: Asked after each batch whether to leave the rest; see `measure`.

        Raises:
            EvaluationError: If the quality or the loss is not finite.
        """
        key = _key(plan)
        known = self._cache.get(key)
        # What one search gave up may be worth another's while.
        if known is not None and (known.images is None or _still_stopped(known, known.images, stop_early)):
            self.hits += 1
            return known
        self._cache[key] = self.run(plan, stop_early)
        self.misses += 1
        return self._cache[key]

    def forget(self) -> None:
        """Evaluates every plan anew from now on."""
        self._cache.clear()

    def remember(self, plan: PruningPlan, outcome: Outcome) -> None:
        """Takes an outcome for the plan's from now on; it was measured before, by an evaluator like this one."""
        self._cache[_key(plan)] = outcome

    def run(self, plan: PruningPlan, stop_early: StopEarly | None = None) -> Outcome:
        """As `evaluate`, whether or not the plan was evaluated before.

        Cuts the network, recalibrates its batch norms, folds them, and measures it on the reward set, as the execution
        settings say; `seconds` then says how long each of these took. A plan that cuts nothing leaves the network and
        its statistics untouched.
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
        """The network in the plan's shape with the dense network's statistics; valid until the next plan."""
        return self._network.cut(plan.kept, plan.by_layer)

    def ready(self, plan: PruningPlan) -> nn.Module:
        """The network in the plan's shape, recalibrated, in the execution settings; valid until the next plan."""
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
        """A network of its own for the plan, in float32 and not folded, batch norms recalibrated, in eval mode."""
        return self.repaired(plan, self.repair)

    def recalibrated(self, network: nn.Module) -> nn.Module:
        """A cut network of the caller's own on the evaluator's device, its batch norms recalibrated in place."""
        recalibrate(network, (images for images, _ in self._exact(self._sets[1])), self._sole_readers)
        return network

    def repaired(self, plan: PruningPlan, repair: Repair | None) -> nn.Module:
        """As `pruned`, with another repair than the evaluator's."""
        small = apply_plan(plan, self.model, repair)
        return self.recalibrated(small) if _cuts(plan) else small

    def measure(self, model: nn.Module) -> float:
        """A network's quality on the reward set in float32, for a result; `evaluate` may rank in bfloat16."""
        return measure(model, self._exact(self._sets[0]), self.task).quality

    def _exact(self, images: ImageSet) -> list[Batch]:
        return _batches(images, ExecutionSettings(self.execution.layout, batch=self.execution.batch), self.device)


def _still_stopped(outcome: Outcome, images: int, stop_early: StopEarly | None) -> bool:
    return stop_early is not None and stop_early(round(images * outcome.quality), images)


def _key(plan: PruningPlan) -> bytes:
    """What a plan keeps, in a few bytes: thousands of plans are remembered."""
    digest = hashlib.blake2b(digest_size=16)
    for kept in plan.kept.values():
        digest.update(np.array([len(kept), *kept], dtype=np.int64).tobytes())
    digest.update(repr(sorted((name, edit.model_dump()) for name, edit in plan.by_layer.items())).encode())
    return digest.digest()


def _cuts(plan: PruningPlan) -> bool:
    return bool(plan.edits) or any(len(unit.kept) < unit.channels for unit in plan.units)


def _batches(images: ImageSet, execution: ExecutionSettings, device: torch.device) -> list[Batch]:
    """A set in memory in the layout and type of the execution settings.

    Batches are as even as can be: of one left-over image a batch norm over 1x1 maps could not tell a variance.
    """
    dtype, layout = execution.tensor_dtype(device), execution.memory_format
    return [
        Batch(part.to(device, dtype).contiguous(memory_format=layout), moved(targets, device))
        for part, targets in images.even_batches(execution.batch or len(images))
    ]
