"""The evaluator: a plan's accuracy on the reward set, after its batch-norm statistics are measured anew."""

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.data import ImageSet
from prune_env.errors import DataError, EvaluationError, ModelError
from prune_env.folding import find_fold_pairs
from prune_env.form import Form
from prune_env.modes import in_eval_mode
from prune_env.plan import PruningPlan
from prune_env.surgery.skeleton import Skeleton
from prune_env.tracing import does_not_run
from prune_env.walk import LayerWalk
from rewards import Outcome

BatchNorm = nn.modules.batchnorm._BatchNorm


class Evaluator:
    """Evaluates plans of one network on images in memory; the same plan is never evaluated twice.

    Args:
        walk: The network's walk.
        reward: Images for the reward, never the test set.
        calibration: Images for the batch-norm statistics, disjoint from the others.
        form: How the forward passes run while plans are ranked.
        device: Where the network runs.
    """

    def __init__(
        self,
        walk: LayerWalk,
        reward: ImageSet,
        calibration: ImageSet,
        form: Form | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.walk = walk
        self.device = torch.device(device)
        self.form = form or Form()
        self.hits = 0
        self._sets = reward, calibration
        self._model = copy.deepcopy(walk.model).to(self.device).to(memory_format=torch.channels_last).eval()
        self._pairs = find_fold_pairs(walk.model, calibration.images[:2]) if self.form.folded else ()
        model = copy.deepcopy(walk.model).to(self.device).to(memory_format=self.form.memory_format)
        self._skeleton = Skeleton(model, walk.units, self.form.torch_dtype, self._pairs)
        self.reward = _batches(reward, self.form, self.device)
        self.calibration = _batches(calibration, self.form, self.device)
        self._cache: dict[tuple[tuple[int, ...], ...], Outcome] = {}

    @property
    def misses(self) -> int:
        """How many plans were really evaluated."""
        return len(self._cache)

    def dense(self) -> Outcome:
        """The outcome of the network as it is."""
        return self.evaluate(self.walk.plan({}))

    def evaluate(self, plan: PruningPlan) -> Outcome:
        """Cuts the network, recalibrates its batch norms and measures it on the reward set, in the evaluator's form.

        A plan that cuts nothing leaves the network and its statistics untouched.

        Raises:
            EvaluationError: If the accuracy or the loss is not finite.
        """
        key = tuple(plan.kept.values())
        if key in self._cache:
            self.hits += 1
            return self._cache[key]
        self._cache[key] = _outcome(plan, *measure_accuracy(self._prepare(plan), self.reward))
        return self._cache[key]

    def _prepare(self, plan: PruningPlan) -> nn.Module:
        """The skeleton in the plan's shape, recalibrated and folded."""
        network = self._skeleton.cut(plan.kept)
        if _cuts(plan):
            recalibrate(network, (images for images, _ in self.calibration))
        self._skeleton.fold()
        return network

    def pruned(self, plan: PruningPlan) -> nn.Module:
        """A network of its own for the plan, in float32 and not folded, batch norms recalibrated, in eval mode."""
        small = plan.apply(self._model)
        if _cuts(plan):
            recalibrate(small, (images for images, _ in self._exact(self._sets[1])))
        return small

    def measure(self, model: nn.Module) -> float:
        """A network's accuracy on the reward set in float32, for a result; `evaluate` may rank in a faster form."""
        return measure_accuracy(model, self._exact(self._sets[0]))[0]

    def _exact(self, images: ImageSet) -> list[tuple[Tensor, Tensor]]:
        return _batches(images, Form(batch=self.form.batch), self.device)


def _cuts(plan: PruningPlan) -> bool:
    return any(len(unit.kept) < unit.channels for unit in plan.units)


def _outcome(plan: PruningPlan, accuracy: float, loss: float) -> Outcome:
    if not (math.isfinite(accuracy) and math.isfinite(loss)):
        raise EvaluationError(
            f"The network gives a loss of {loss} and an accuracy of {accuracy} on the reward set with the widths "
            f"{plan.widths}. Check the network's weights and the data's scaling."
        )
    return Outcome(accuracy=accuracy, loss=loss, macs=plan.costs.macs, params=plan.costs.params)


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measures every batch norm's statistics anew, in place (adaptive batch norm, Li et al., ECCV 2020).

    The statistics are reset and averaged cumulatively over the batches, every image counting alike; only batch norms
    are put into training mode, so dropout stays off.

    Args:
        model: The network, in eval mode.
        batches: Image batches [N, C, H, W]; more than one value a channel is needed in each.

    Raises:
        DataError: If a batch norm sees a single value a channel, which has no variance.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    try:
        with torch.no_grad():
            for images in batches:
                seen += len(images)
                for norm in norms:
                    norm.momentum = len(images) / seen
                model(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            f"A batch norm over maps of a single pixel cannot tell a variance from a batch of {len(images)} "
            "calibration image. Raise data.calibration_images and data.batch_size to 2 or more."
        ) from None
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def check_output(model: nn.Module, image: Tensor, classes: int) -> None:
    """Refuses a network that is no classifier of this many classes; it is run once and left as it is.

    Args:
        model: The network.
        image: One image [1, C, H, W].
        classes: How many classes the data have.

    Raises:
        ModelError: If the network does not run on the image, or its output is not [1, classes or more].
    """
    with in_eval_mode(model), torch.no_grad():
        try:
            output = model(image)
        except Exception as error:  # the user's own code may raise anything
            raise does_not_run(error, image) from error
    _check_logits(output, len(image), classes)


def _check_logits(output: object, count: int, classes: int) -> None:
    """Refuses what is not one score for each image and class; more scores than classes are fine."""
    shape = list(output.shape) if isinstance(output, Tensor) else None
    if shape is None or len(shape) != 2 or shape[0] != count or shape[1] < classes:
        found = f"a {type(output).__name__}" if shape is None else f"of shape {shape}"
        raise ModelError(
            f"The network's output is {found}; a tensor of shape [{count}, {classes}] is needed for "
            f"{count} image{'s' * (count != 1)} of {classes} classes. Give a network with one output for each class."
        )


def measure_accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Top-1 accuracy in [0, 1] and mean cross-entropy in nats over labelled batches, in float32.

    Raises:
        ModelError: If the network's output is not one score for each image and class.
    """
    correct = count = 0
    loss = 0.0
    with torch.no_grad():
        for images, labels in batches:
            output = model(images)
            _check_logits(output, len(images), int(labels.max()) + 1)
            logits = output.float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
    return correct / count, loss / count


def _batches(images: ImageSet, form: Form, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """A set in memory in the form's layout and type.

    Batches are as even as can be: of one left-over image a batch norm over 1x1 maps could not tell a variance.
    """
    count = math.ceil(len(images) / form.batch)
    return [
        (part.to(device, form.torch_dtype).contiguous(memory_format=form.memory_format), labels.to(device))
        for part, labels in zip(images.images.tensor_split(count), images.labels.tensor_split(count), strict=True)
    ]
