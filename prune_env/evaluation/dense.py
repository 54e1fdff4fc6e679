"""The first measurement of all: the dense network as the user gave it, and whether its quality can be true.

A wrong size or scale of the images, or another order of the classes, spoils the dense network alone: batch norms of
pruned networks are measured again, so a search on wrong images looks like a success.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor, nn

from prune_env.batch_norm.recalibration import recalibrate
from prune_env.common.copying import copied
from prune_env.data import Batch, ImageSet, Splits, images_in_words
from prune_env.evaluation.measuring import measure, measure_all
from prune_env.evaluation.pairs import Pairs
from prune_env.tasks import Metric, Task, chance_of, quality_of, right_of, suspicions_of

BATCH = 16
"""Most images in a forward pass; few, because maps of large images must stay in the processor's caches."""

LOOKED_AT = 400
"""Most images on which new batch-norm statistics are compared with the network's own [our choice]."""

ERRORS = 3.0
"""A difference is trusted from this number of standard errors on [our choice]."""

LEAST = 0.01
"""A quality that counts no images, such as mAP, is near chance up to this [our choice]."""

APART = 0.1
"""A difference of two qualities that count no images is trusted from this on [our choice]."""


@dataclass(frozen=True)
class DenseQuality:
    """The quality of the dense network on the reward set.

    Attributes:
        metric: The task's quality.
        quality: The quality, in [0, 1].
        recalibrated: The quality with batch norms measured anew on the calibration set, on the first images.
        original: The quality of the network as it is on the same first images.
        compared: Number of these images, at most `LOOKED_AT`.
        chance: The quality of the best answer that does not depend on the image, in [0, 1].
        images: Number of images.
        given: The images' size and scale, and the range of their values, in words.
        suspicions: What the network does wrong, in words; empty where nothing is wrong.
        pairs: The recalibrated network against the one as it is, image by image; None if the quality does not say
            which images are right.
    """

    metric: Metric
    quality: float
    recalibrated: float
    original: float
    compared: int
    chance: float
    images: int
    given: str
    suspicions: tuple[str, ...] = ()
    pairs: Pairs | None = None

    @property
    def bound(self) -> float:
        """Up to this quality the network is near chance: `ERRORS` standard errors above ``chance``, or `LEAST`."""
        return self.chance + ERRORS * _error(self.chance, self.images) if self.metric.counts else LEAST

    @property
    def near_chance(self) -> bool:
        """Whether the quality may be that of a network that does not look at its images."""
        return self.quality <= self.bound

    @property
    def misread(self) -> bool:
        """Whether new batch-norm statistics alone make the network better: its images are not those it knows.

        By McNemar's test where both networks are known image by image, which finds a smaller rise; the chance of a
        false alarm is that of `ERRORS` standard errors.
        """
        if self.pairs is not None:
            return self.pairs.won > self.pairs.lost and self.pairs.p_value < 2.0 * NormalDist().cdf(-ERRORS)
        return far_above(self.recalibrated, self.original, self.metric, self.compared)

    @property
    def doubtful(self) -> bool:
        """Whether a search on this network makes no sense."""
        return self.near_chance or self.misread

    def __str__(self) -> str:
        """The quality in words, for a person."""
        return f"dense network: {self.metric.name} {self._shown(self.quality)} on {self.images:,} reward images"

    def doubts(self) -> str:
        """What is wrong, and the likely reasons, one a line; without a remedy."""
        name = self.metric.name
        what = f"The dense network has {name} {self._shown(self.quality)} on the {self.images:,} reward images"
        if self.near_chance:
            rule = f"within {ERRORS:g} standard errors of chance" if self.metric.counts else "no more than chance"
            what += (
                f", {rule} ({self._shown(self.chance)} without a look at the image, up to {self._shown(self.bound)})"
            )
        if self.misread:
            what += (
                f", but {self._shown(self.recalibrated)} with batch norms measured anew on images like these. So these "
                "are not the images of its training, and pruned networks, whose batch norms are always measured anew, "
                "would look better than they are"
            )
        usual = [f"image size, mean and std: the images come as {self.given}; a network wants those of its training"]
        if self.near_chance:
            usual.append("class order: the labels' numbers must be those of its training")
        else:
            usual.append("a training that was too short for its batch norms")
        return "\n".join([f"{what}. Likely reasons:", *(f"  - {reason}" for reason in (*self.suspicions, *usual))])

    def _shown(self, quality: float) -> str:
        return f"{quality:{self.metric.format}}"


def far_above(quality: float, dense: float, metric: Metric, images: int) -> bool:
    """Whether a quality is better than the dense network's by more than chance.

    Args:
        quality: The quality of another network.
        dense: The dense network's quality on the same images.
        metric: The quality.
        images: Number of images; 0 if not known, which trusts no difference.
    """
    if not images:
        return False
    return quality - dense > (ERRORS * math.sqrt(2.0) * _error(dense, images) if metric.counts else APART)


def _error(share: float, images: int) -> float:
    """The standard error of a share of the images."""
    return math.sqrt(share * (1.0 - share) / images)


def measure_dense(model: nn.Module, splits: Splits, task: Task, device: torch.device) -> DenseQuality:
    """Measures the dense network on the reward set, as it is and with its batch norms recalibrated.

    Args:
        model: The network, in eval mode; stays unchanged.
        splits: The data.
        task: The network's task.
        device: The device of the measurement.

    Raises:
        ModelError: If the network's outputs do not fit the task.
    """
    network, reward, metric = copied(model).to(device), splits.reward(), quality_of(task)
    network = network.to(memory_format=torch.channels_last).eval()
    # A quality that does not count images is no mean of those of two parts.
    compared = min(len(reward), LOOKED_AT) if metric.counts else len(reward)
    first, rest = (_on(device, reward.at(part)) for part in torch.arange(len(reward)).tensor_split([compared]))
    original, right = _measure(network, first, task)
    quality = original
    if rest:
        quality += (measure(network, rest, task).quality - quality) * (1 - compared / len(reward))
    low, high = float(reward.images.min()), float(reward.images.max())
    dense = DenseQuality(
        metric,
        quality,
        original,
        original,
        compared,
        chance_of(task, reward.targets),
        len(reward),
        f"{images_in_words(splits.source)}, values from {low:.3g} to {high:.3g}",
    )
    if dense.near_chance:
        dense = replace(dense, suspicions=tuple(suspicions_of(task, network, [*first, *rest])))
    recalibrate(network, (images for images, _ in _on(device, splits.calibration())))
    recalibrated, now_right = _measure(network, first, task)
    pairs = None if right is None or now_right is None else Pairs.of(now_right, right)
    return replace(dense, recalibrated=recalibrated, pairs=pairs)


def _measure(network: nn.Module, batches: list[Batch], task: Task) -> tuple[float, Tensor | None]:
    """Returns the quality, and which images are right; None for these if the quality does not say so."""
    if right_of(task) is None:
        return measure(network, batches, task).quality, None
    metrics, right = measure_all(network, batches, task)
    return metrics[quality_of(task).name], right


def _on(device: torch.device, images: ImageSet) -> list[Batch]:
    layout = torch.channels_last
    if not len(images):
        return []
    return [
        Batch(part.contiguous(memory_format=layout), targets) for part, targets in images.to(device).even_batches(BATCH)
    ]
