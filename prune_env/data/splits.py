"""The sets that a search is made of: disjoint by construction, by index, the same for the same seed."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prune_env.common.errors import DataError
from prune_env.data.image_set import ImageSet
from prune_env.data.source import ImageSource, Indices, Split, SplitTargets


@dataclass(frozen=True, eq=False)
class Splits:
    """Which image of a data set serves what; int64 indices, read-only.

    Attributes:
        source: The data set.
        reward_indices: Images of the training split that the reward is measured on.
        calibration_indices: Images of the training split for BN statistics and feature-map ranks.
        train_indices: The rest of the training split: what a training on the spot may use.
        test_indices: Images of the test split, which no search ever sees.
    """

    source: ImageSource
    reward_indices: Indices
    calibration_indices: Indices
    train_indices: Indices
    test_indices: Indices

    def reward(self) -> ImageSet:
        """Load the reward set."""
        return load_images(self.source, "train", self.reward_indices)

    def calibration(self) -> ImageSet:
        """Load the calibration set."""
        return load_images(self.source, "train", self.calibration_indices)

    def test_batches(self, batch_size: int) -> Iterator[ImageSet]:
        """Load the test set batch by batch, ``batch_size`` images each but for the last."""
        for start in range(0, len(self.test_indices), batch_size):
            yield load_images(self.source, "test", self.test_indices[start : start + batch_size])

    def record(self) -> dict[str, Any]:
        """What a run keeps of the splits, ready for JSON; the training images are all that are in no list."""
        return {
            "source": self.source.name,
            "reward": self.reward_indices.tolist(),
            "calibration": self.calibration_indices.tolist(),
            "test": self.test_indices.tolist(),
            "train_images": len(self.train_indices),
        }


def load_images(source: ImageSource, split: Split, indices: Indices) -> ImageSet:
    """Load images and their targets.

    Args:
        source: The data set.
        split: Its training or its test split.
        indices: Which images, int64 [n].

    Returns:
        The images in that order.
    """
    images, targets = source.load(split, indices), source.targets(split)
    if isinstance(targets, np.ndarray):
        return ImageSet(images, torch.from_numpy(targets[indices]))
    return ImageSet(images, [targets[index] for index in indices])


def _itself(target: Any) -> Hashable:
    found: Hashable = target
    return found


def make_splits(
    source: ImageSource,
    reward_images: int,
    calibration_images: int,
    seed: int,
    test_images: int | None = None,
    stratum: Callable[[Any], Hashable] = _itself,
) -> Splits:
    """Draw the reward, calibration and test sets, class-balanced: counts per class differ by at most 1.

    A class here is a stratum: the images whose targets the task puts into one.

    Args:
        source: The data set.
        reward_images: Size of the reward set, drawn from the training split, at least 1.
        calibration_images: Size of the calibration set, drawn from the rest of the training split.
        seed: The same seed draws the same images.
        test_images: Size of the test set; None takes the whole test split.
        stratum: The class that an image counts for, by its target; classes can be sorted (see `Task.stratum`).

    Returns:
        The splits; reward and calibration images stand in random order.

    Raises:
        DataError: If there are not as many images as asked for.
    """
    classes = _numbered(source.targets("train"), stratum)
    generator = np.random.default_rng(seed)
    everything = np.arange(len(classes), dtype=np.int64)
    reward = _draw("data.reward_images", 1, reward_images, classes, everything, generator)
    remaining = np.setdiff1d(everything, reward)
    calibration = _draw("data.calibration_images", 0, calibration_images, classes, remaining, generator)
    train = np.setdiff1d(remaining, calibration)

    test = np.arange(len(source.targets("test")), dtype=np.int64)
    if test_images is not None:
        # Its own generator, so that the test set does not change with the size of the other two.
        generator, classes = np.random.default_rng([seed, 1]), _numbered(source.targets("test"), stratum)
        test = _draw("data.test_images", 1, test_images, classes, test, generator)
    for indices in (reward, calibration, train, test):
        indices.setflags(write=False)
    return Splits(source, reward, calibration, train, test)


def _numbered(targets: SplitTargets, stratum: Callable[[Any], Hashable]) -> Indices:
    """The class of each target as a number from 0, in the order of the sorted classes, int64 [N]."""
    found: list[Any] = [stratum(target) for target in targets]
    numbers = {one: number for number, one in enumerate(sorted(set(found)))}
    return np.array([numbers[one] for one in found], dtype=np.int64)


def _draw(
    setting: str, least: int, count: int, classes: Indices, available: Indices, generator: np.random.Generator
) -> Indices:
    """Draw ``count`` of the ``available`` indices, class-balanced, in random order."""
    if count < least:
        raise DataError(f"{setting}={count} must be at least {least}")
    present = np.unique(classes)
    by_class = available[np.argsort(classes[available], kind="stable")]
    pools = np.split(by_class, np.searchsorted(classes[by_class], present[1:]))
    each, left = divmod(count, len(present))
    larger = [place for place, pool in enumerate(pools) if len(pool) > each]
    smallest = min(len(pool) for pool in pools)
    if smallest < each or len(larger) < left:
        most = smallest * len(present) + sum(len(pool) > smallest for pool in pools)
        raise DataError(
            f"{setting}={count} is more than there is: {len(available)} images of {len(present)} classes are "
            f"left, {smallest} in the smallest class, so that at most {most} can be drawn class-balanced"
        )
    one_more = set(generator.choice(larger, left, replace=False).tolist()) if left else set()
    drawn = [generator.permutation(pool)[: each + (place in one_more)] for place, pool in enumerate(pools)]
    return generator.permutation(np.concatenate(drawn))
