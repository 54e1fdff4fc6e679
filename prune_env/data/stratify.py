"""Subsets of images that hold objects of several classes."""

from collections.abc import Hashable, Sequence

import numpy as np

from prune_env.data.source import Indices


def draw_stratified(
    strata: Sequence[frozenset[Hashable]], available: Indices, count: int, generator: np.random.Generator
) -> Indices:
    """Draws images so that each class is in about as large a share of them as of all available images.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011): of the classes that are still wanted, the
    class with the fewest images left draws first. An image without a class counts as a class of its own.

    Args:
        strata: The classes of every image of the split; empty for an image without an object.
        available: Indices of the images to draw from, int64 [n].
        count: Number of images to draw, at most n.
        generator: Draws among images of equal merit.

    Returns:
        The drawn indices in random order, int64 [count].
    """
    order = generator.permutation(available)
    names = sorted({name for index in order.tolist() for name in strata[index]}, key=repr)
    holds = np.zeros((len(order), len(names) + 1), dtype=bool)
    places = {name: place for place, name in enumerate(names)}
    for row, index in enumerate(order.tolist()):
        holds[row, [places[name] for name in strata[index]] or [len(names)]] = True
    wanted = holds.sum(0) * (count / max(1, len(order)))
    left = np.ones(len(order), dtype=bool)
    drawn: list[int] = []
    while len(drawn) < count:
        remaining = holds[left].sum(0)
        open_classes = np.flatnonzero((remaining > 0) & (wanted > 0))
        candidates = np.flatnonzero(left)
        if len(open_classes):
            rarest = open_classes[np.argmin(remaining[open_classes])]
            candidates = candidates[holds[candidates, rarest]]
        # Of the images with this class, the one whose classes are wanted most, so that common classes do not overflow.
        merit = np.where(holds[candidates], np.minimum(wanted, 1.0), 0.0).sum(1)
        chosen = int(candidates[np.argmax(merit)])
        drawn.append(chosen)
        left[chosen] = False
        wanted = wanted - holds[chosen]
    return generator.permutation(order[drawn])
