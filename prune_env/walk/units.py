"""Units from labels: classes of labels that run through the same places in the same way."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prune_env.common.arrays import IntArray
from prune_env.common.layers import channels_of
from prune_env.walk.costs import Extent, VectorCost
from prune_env.walk.labels.follow import Follower
from prune_env.walk.labels.owners import Place
from prune_env.walk.labels.ties import Classes
from prune_env.walk.unit import Member, Unit


def units_from(follower: Follower, classes: Classes) -> list[Unit]:
    """Divides the channels that the layers write into units.

    Args:
        follower: One forward pass, followed to its end.
        classes: The classes of its labels.

    Returns:
        The units by the first layer that writes them, in calling order, not yet proved. No two units overlap. A unit
        is named after that layer; further units of the same layer have ``#2``, ``#3`` after the name. Units that
        cannot be cut are protected, with the reason.
    """
    order = _ordered(follower)
    table = _Table.of(follower, order, classes)
    units = [*_units(follower, order, table, classes), *_single_channels(follower)]
    return _named(units, list(follower.writers))


def costs_without_layer(follower: Follower, classes: Classes, units: Sequence[Unit]) -> list[VectorCost]:
    """Returns the cost of operations on channels that no layer computes, by unit."""
    unit_of: dict[int, int] = {}
    for number, unit in enumerate(units):
        labels = follower.places.get((unit.members[0].module, "out"))
        if labels is not None:
            own = classes.of[labels.numpy()[unit.members[0].index.ravel()]]
            unit_of.update(dict.fromkeys(own.tolist(), number))
    costs = []
    for place, macs, labels in follower.varying:
        found = Counter(unit_of.get(number, -1) for number in classes.of[labels.numpy()].tolist())
        fixed = found.pop(-1, 0)
        parts = tuple((number, count // units[number].channels) for number, count in found.items())
        costs.append(VectorCost(place, Extent(fixed, parts), macs=macs))
    return costs


def _ordered(follower: Follower) -> list[Place]:
    """Returns the places: writers in calling order, then all else that holds channels, then readers."""
    wanted = [(name, "out") for name in follower.writers if name in follower.shapes]
    wanted += [place for place in follower.places if place[1] != "in"]
    wanted += [(name, "in") for name in follower.shapes]
    wanted += [place for place in follower.places if place[1] == "in"]
    # A side that does not hold as many channels as met there cannot be cut; the proof says so where this matters.
    sizes = {(name, side): channels_of(follower.owners.modules[name], side) for name, side in follower.places}
    return [place for place in dict.fromkeys(wanted) if sizes.get(place) == len(follower.places.get(place, ()))]


@dataclass(frozen=True)
class _Table:
    """Where each class stands: rows sorted by class, then by place, then by channel.

    Attributes:
        place: The number of each row's place.
        channel: The channel of that place.
        starts: The first row of each class.
        classes: The class numbers.
    """

    place: IntArray
    channel: IntArray
    starts: IntArray
    classes: IntArray

    @classmethod
    def of(cls, follower: Follower, order: list[Place], classes: Classes) -> "_Table":
        labels = [follower.places[place].numpy() for place in order]
        place = np.repeat(np.arange(len(order)), [len(own) for own in labels])
        channel = np.concatenate([np.arange(len(own)) for own in labels])
        label = np.concatenate(labels)
        owned = label > 0
        of, place, channel = classes.of[label[owned]], place[owned], channel[owned]
        rows = np.lexsort((channel, place, of))
        of = of[rows]
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        return cls(place[rows], channel[rows], starts, of[starts])

    def rows(self, number: int) -> slice:
        """Returns the rows of the class with this number in ``classes``."""
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.place)
        return slice(int(self.starts[number]), int(stop))


def _units(follower: Follower, order: list[Place], table: _Table, classes: Classes) -> Iterator[Unit]:
    """Gathers classes with the same members, the same number of channels in each and the same reasons."""
    written = {(name, "out") for name in follower.writers if name in follower.shapes}
    writes = np.asarray([place in written for place in order])
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, name in enumerate(table.classes.tolist()):
        places = table.place[table.rows(number)]
        if writes[places[0]]:
            key = (places.tobytes(), classes.reasons.get(name), classes.inexact.get(name))
            alike.setdefault(key, []).append(number)
    for (_, reason, inexact), numbers in alike.items():
        places = table.place[table.rows(numbers[0])]
        channels = np.stack([table.channel[table.rows(number)] for number in numbers])
        channels = channels[np.argsort(channels[:, 0], kind="stable")]
        bounds = np.flatnonzero(np.diff(places, prepend=-1)).tolist()
        members = tuple(
            Member(order[places[start]][0], order[places[start]][1], np.ascontiguousarray(channels[:, start:stop]))
            for start, stop in zip(bounds, [*bounds[1:], len(places)], strict=True)
        )
        protected = _reason(members, reason, None if follower.owners.approximate else inexact)
        yield Unit("", len(numbers), members, protected, None if inexact is None else str(inexact))


def _reason(members: tuple[Member, ...], reason: object, inexact: object) -> str | None:
    if reason is not None:
        return str(reason)
    if inexact is not None:
        return f"its cut would change what stays: {inexact}"
    if not any(member.side == "in" for member in members):
        return "nothing that can be cut reads its channels"
    return "it has a single channel that can only be kept" if len(members[0].index) == 1 else None


def _single_channels(follower: Follower) -> Iterator[Unit]:
    """Layers of one output channel carry no labels: their channel can only be kept."""
    whole = np.zeros((1, 1), dtype=np.int64)
    for name in follower.writers:
        if name in follower.shapes and (name, "out") not in follower.places:
            yield Unit("", 1, (Member(name, "out", whole),), "it has a single channel that can only be kept")


def _named(units: list[Unit], writers: list[str]) -> list[Unit]:
    position = {name: number for number, name in enumerate(writers)}
    units.sort(key=lambda unit: (position[unit.members[0].module], int(unit.members[0].index[0, 0])))
    seen: dict[str, int] = {}
    named = []
    for unit in units:
        first = unit.members[0].module
        seen[first] = seen.get(first, 0) + 1
        name = first if seen[first] == 1 else f"{first}#{seen[first]}"
        named.append(replace(unit, name=name))
    return named
