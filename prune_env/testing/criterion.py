"""Whether a criterion keeps the promises that searches, score files and plans rely on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prune_env.common.randomness import global_randomness
from prune_env.criteria import Criterion, Registered, ScoringContext, as_registered, criterion_named, run_criterion
from prune_env.data import ImageSet, tensors_of
from prune_env.testing.networks import small_images, small_networks, small_walk
from prune_env.testing.promises import Snapshot, explained, require
from prune_env.walk import LayerWalk, Scores

IMAGES = 6
SEED = 3


def check_criterion(criterion: str | Criterion) -> None:
    """Checks that a criterion keeps its promises, on small networks; takes seconds.

    A criterion gives each channel of each unit one finite score. It is a function of the network, and of what it says
    that it looks at (its ``needs`` and ``random``; scores are kept in a file by these). It changes nothing.

    Args:
        criterion: A registered name, ``package.module:callable``, or the function itself.

    Raises:
        AssertionError: Says which promise is broken, and on which network.
        ConfigError: If there is no such criterion.

    Example:
        >>> from prune_env.testing import check_criterion
        >>> check_criterion("l1")
        >>> check_criterion(lambda context: {unit.name: [0.0] for unit in context.walk.units})
        Traceback (most recent call last):
        ...
        AssertionError: criterion '<lambda>' fails on a chain of convolutions: UserError: Criterion '<lambda>' gave ...
    """
    name = criterion if isinstance(criterion, str) else getattr(criterion, "__qualname__", repr(criterion))
    known = criterion_named(criterion) if isinstance(criterion, str) else as_registered(name, criterion)
    for place, model in small_networks().items():
        _Check(f"criterion {name!r}", name, known, place, small_walk(model)).run()


@dataclass(frozen=True)
class _Check:
    """One criterion on one network."""

    what: str
    name: str
    criterion: Registered
    place: str
    walk: LayerWalk

    def run(self) -> None:
        data, original = small_images(IMAGES), small_images(IMAGES)
        # Training mode: a forward pass on anything but a copy would move the statistics of batch norms.
        self.walk.model.train()
        before = Snapshot(self.walk.model)
        scores = self._scores(data, SEED, noise=0)
        changed = before.difference()
        require(changed is None, f"{self.what} on {self.place}: {changed}.")
        pairs = zip(tensors_of(data.targets), tensors_of(original.targets), strict=True)
        same = data.images.equal(original.images) and all(one.equal(other) for one, other in pairs)
        require(same, f"{self.what} on {self.place}: it changes the images or targets; work on a copy.")
        self._require_same(
            scores,
            self._scores(data, SEED, noise=1),
            "it gives other scores the second time, for the same seed and images. It depends on something else, such "
            "as a global generator or what it has kept; draw from np.random.default_rng(context.seed)",
        )
        if not self.criterion.random:
            words = "it gives other scores for another seed, and says random=False"
            self._require_same(scores, self._scores(data, SEED + 1, noise=0), words)
        self._check_needs(scores, data)

    def _check_needs(self, scores: Scores, data: ImageSet) -> None:
        if self.criterion.needs == "weights":
            words = "it gives other scores without images, and says needs='weights'"
            self._require_same(scores, self._scores(None, SEED, noise=0), words)
        elif self.criterion.needs == "images":
            other = ImageSet(data.images, small_images(IMAGES, seed=1).targets)
            words = "it gives other scores for other targets, and says needs='images'"
            self._require_same(scores, self._scores(other, SEED, noise=0), words)

    def _scores(self, data: ImageSet | None, seed: int, noise: int) -> Scores:
        """The scores while the global generators are seeded by ``noise``."""
        with explained(f"{self.what} fails on {self.place}"), global_randomness(noise):
            return run_criterion(self.name, self.criterion, ScoringContext(self.walk, data, seed))

    def _require_same(self, scores: Scores, others: Mapping[str, object], words: str) -> None:
        for unit, values in scores.items():
            same = np.array_equal(values, np.asarray(others[unit]))
            require(same, f"{self.what} on {self.place}, unit {unit!r}: {words}.")
