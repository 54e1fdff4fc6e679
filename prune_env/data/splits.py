"""The reward, calibration, training and test sets: disjoint by index, and the same for the same seed."""

import warnings
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from prune_env.common.errors import DataError, DataWarning
from prune_env.common.records import Record
from prune_env.data.image_set import ImageSet, Targets
from prune_env.data.source import ImageSource, Indices, Split, SplitTargets
from prune_env.data.stratify import draw_stratified

Index = Annotated[int, Field(ge=0, lt=2**63)]


class SplitsRecord(Record):
    """The file ``splits.json`` of a run or a training: which images each set has.

    Attributes:
        source: Name of the data set.
        reward: Indices of the reward set, in the order of the evaluation.
        calibration: Indices of the calibration set.
        test: Indices of the test set.
        train_images: Number of the other training images.
    """

    source: str
    reward: list[Index]
    calibration: list[Index]
    test: list[Index]
    train_images: Index

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        training, tested = self.reward + self.calibration, self.test
        if len(set(training)) < len(training) or len(set(tested)) < len(tested):
            raise ValueError("an image stands twice in the sets; those of reward and calibration are disjoint")
        return self


@dataclass(frozen=True, eq=False)
class Splits:
    """The images of each set, as read-only int64 indices into a data set.

    Attributes:
        source: The data set.
        reward_indices: Images of the training split for the reward.
        calibration_indices: Images of the training split for BN statistics and feature-map ranks.
        train_indices: The rest of the training split: images for training.
        test_indices: Images of the test split, which no search ever sees; may be empty, then nothing is tested.
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
        """Load the test set in batches of ``batch_size`` images; the last batch may be smaller."""
        for start in range(0, len(self.test_indices), batch_size):
            yield load_images(self.source, "test", self.test_indices[start : start + batch_size])

    def record(self) -> SplitsRecord:
        """The splits as a run records them; training images are counted, not listed."""
        return SplitsRecord(
            source=self.source.name,
            reward=self.reward_indices.tolist(),
            calibration=self.calibration_indices.tolist(),
            test=self.test_indices.tolist(),
            train_images=len(self.train_indices),
        )


def load_images(source: ImageSource, split: Split, indices: Indices) -> ImageSet:
    """Load images and their targets.

    Args:
        source: The data set.
        split: The training or the test split.
        indices: Indices of the images, int64 [n].

    Returns:
        The images in that order.
    """
    return ImageSet(source.load(split, indices), load_targets(source, split, indices))


def load_targets(source: ImageSource, split: Split, indices: Indices) -> Targets:
    """The targets of images, in the order of their indices."""
    targets = source.targets(split)
    if isinstance(targets, np.ndarray):
        return torch.from_numpy(targets[indices])
    return [targets[index] for index in indices]


def _identity(target: Any) -> Hashable:
    stratum: Hashable = target
    return stratum


def make_splits(
    source: ImageSource,
    reward_images: int,
    calibration_images: int,
    seed: int,
    test_images: int | None = None,
    stratum: Callable[[Any], Hashable] = _identity,
) -> Splits:
    """Draw the reward, calibration and test sets, class-balanced: counts per class differ by at most 1.

    A class that has fewer images than the others give is drawn as far as it reaches; a `DataWarning` says so. The
    reward and the calibration set leave half of its images to the other sets where the rest has enough.

    Here a class is a stratum: all images whose targets have the same value of ``stratum``. If strata are sets of
    classes, each class is in as large a share of a set's images as of the data set's (see `draw_stratified`).

    Args:
        source: The data set.
        reward_images: Size of the reward set, drawn from the training split, at least 1.
        calibration_images: Size of the calibration set, drawn from the rest of the training split.
        seed: The same seed draws the same images.
        test_images: Size of the test set; None takes the whole test split.
        stratum: Maps an image's target to the image's class; classes can be sorted (see `Task.stratum`).

    Returns:
        The splits; reward and calibration images are in random order.

    Raises:
        DataError: If a size is below its minimum, or above the number of images that are left.
    """
    draw = _drawer(source.targets("train"), stratum, spared=True)
    generator = np.random.default_rng(seed)
    everything = np.arange(len(source.targets("train")), dtype=np.int64)
    reward = draw("data.reward_images", 1, reward_images, everything, generator)
    remaining = np.setdiff1d(everything, reward)
    calibration = draw("data.calibration_images", 0, calibration_images, remaining, generator)
    train = np.setdiff1d(remaining, calibration)

    test = np.arange(len(source.targets("test")), dtype=np.int64)
    if test_images is not None:
        # A separate generator, so that the test set does not depend on the sizes of the other two sets.
        generator, draw = np.random.default_rng([seed, 1]), _drawer(source.targets("test"), stratum)
        test = draw("data.test_images", 1, test_images, test, generator)
    for indices in (reward, calibration, train, test):
        indices.setflags(write=False)
    return Splits(source, reward, calibration, train, test)


Draw = Callable[[str, int, int, Indices, np.random.Generator], Indices]
"""Draws some of the available indices in random order, given the setting's name, the least number and the number."""


def _drawer(targets: SplitTargets, stratum: Callable[[Any], Hashable], spared: bool = False) -> Draw:
    """How to draw from images whose targets have one class each, or a set of classes each; ``spared``: `_balanced`."""
    strata: list[Any] = [stratum(target) for target in targets]
    balanced = not (strata and all(isinstance(one, frozenset) for one in strata))
    numbers = {name: number for number, name in enumerate(sorted(set(strata)))} if balanced else {}
    classes = np.array([numbers[name] for name in strata] if balanced else [], dtype=np.int64)

    def draw(setting: str, least: int, count: int, available: Indices, generator: np.random.Generator) -> Indices:
        if count < least:
            raise DataError(f"{setting}={count} must be at least {least}")
        if balanced:
            return _balanced(setting, count, classes, available, generator, spared)
        if count > len(available):
            raise DataError(f"{setting}={count} is too large: {len(available)} images are left")
        return draw_stratified(strata, available, count, generator)

    return draw


def _balanced(
    setting: str, count: int, classes: Indices, available: Indices, generator: np.random.Generator, spared: bool
) -> Indices:
    """Draw ``count`` of the ``available`` indices in random order, class-balanced as far as the classes reach.

    With ``spared``, half of the images of a small class stay, if the other classes have enough.
    """
    if count > len(available):
        raise DataError(f"{setting}={count} is too large: {len(available)} images are left")
    present = np.unique(classes)
    by_class = available[np.argsort(classes[available], kind="stable")]
    pools = np.split(by_class, np.searchsorted(classes[by_class], present[1:]))
    sizes = np.array([len(pool) for pool in pools])
    each = count // len(present)
    if np.minimum(sizes, each + 1).sum() < count:  # the others give more than a small class has
        halves = -(-sizes // 2)
        sizes = halves if spared and count <= halves.sum() else sizes
        each = bisect_right(range(count + 1), count, key=lambda most: int(np.minimum(sizes, most).sum())) - 1
    left = count - int(np.minimum(sizes, each).sum())
    larger = np.flatnonzero(sizes > each).tolist()
    one_more = set(generator.choice(larger, left, replace=False).tolist()) if left else set()
    quotas = np.minimum(sizes, each)
    drawn = [generator.permutation(pool)[: quotas[place] + (place in one_more)] for place, pool in enumerate(pools)]
    fewest, most = (choose(map(len, drawn)) for choose in (min, max))
    if most > fewest + 1:
        warnings.warn(
            f"{setting}={count}: the classes are of unequal size, so {fewest} to {most} images of each were drawn",
            DataWarning,
            stacklevel=2,
        )
    return generator.permutation(np.concatenate(drawn))
