"""Subsets of images that hold objects of several classes."""

from collections.abc import Hashable, Sequence

import numpy as np

from prune_env.data.source import Indices


def draw_stratified(
    strata: Sequence[frozenset[Hashable]], available: Indices, count: int, generator: np.random.Generator
) -> Indices:
    """Draws images so that each class is in about as large a share of them as of all available images.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011): of the classes that are still wanted, the
    class with the fewest images left draws first. The number of classes in an image counts as a class, too [our
    choice]; otherwise images with many classes would be drawn more often.

    Args:
        strata: The classes of every image of the split; empty for an image without an object.
        available: Indices of the images to draw from, int64 [n].
        count: Number of images to draw, at most n.
        generator: Draws among images of equal merit.

    Returns:
        The drawn indices in random order, int64 [count].
    """
    order = generator.permutation(available)
    held = [{*strata[index], ("classes", len(strata[index]))} for index in order.tolist()]
    places = {name: place for place, name in enumerate(sorted(set().union(*held), key=repr))}
    holds = np.zeros((len(order), len(places)), dtype=bool)
    for row, names in enumerate(held):
        holds[row, [places[name] for name in names]] = True
    wanted = holds.sum(0) * (count / max(1, len(order)))
    # A class that should have less than half an image does not draw; else many rare classes fill a small subset.
    draws = wanted >= 0.5
    remaining, left = holds.sum(0), np.ones(len(order), dtype=bool)
    drawn: list[int] = []
    while len(drawn) < count:
        open_classes = np.flatnonzero(draws & (remaining > 0) & (wanted > 0))
        rarest = open_classes[np.argmin(remaining[open_classes])] if len(open_classes) else None
        candidates = np.flatnonzero(left if rarest is None else left & holds[:, rarest])
        # Of the images with this class, one whose other classes are still wanted, so that none gets too many.
        merit = -(holds[candidates] & (wanted <= 0)).sum(1)
        chosen = int(candidates[np.argmax(merit)])
        drawn.append(chosen)
        left[chosen] = False
        remaining, wanted = remaining - holds[chosen], wanted - holds[chosen]
    return generator.permutation(order[drawn])
