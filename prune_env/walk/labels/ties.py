"""Labels: one number for each channel that a layer writes, which labels are tied, and which cannot be cut.

Label 0 stands for what no unit owns: images, constants, padding. It ties nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from prune_env.common.arrays import IntArray


@dataclass(frozen=True)
class Classes:
    """The result: labels that are cut together, by class.

    Attributes:
        of: The class of each label, int64 [labels].
        reasons: Why a class cannot be cut, by class.
        inexact: Why the cut of a class would change what stays, by class.
    """

    of: IntArray
    reasons: dict[int, str]
    inexact: dict[int, str]


@dataclass(frozen=True)
class _Together:
    """Labels [lines, length]: the labels of one line must be cut together, or they cannot be cut."""

    lines: IntArray
    reason: str
    inexact: bool


class Labels:
    """Collects ties between labels while a network runs, and divides the labels into classes at the end."""

    def __init__(self, tick: Callable[[str], None] = lambda _place: None) -> None:
        self._tick = tick
        self._count = 1
        self._bare: list[tuple[int, int]] = []
        self._ties: list[IntArray] = []
        self._grids: list[IntArray] = []
        self._pieces: list[IntArray] = []
        self._together: list[_Together] = []
        self._marks: list[tuple[IntArray, str, bool]] = []
        self._known_classes: IntArray | None = None

    def fresh(self, count: int) -> Tensor:
        """Returns labels that nothing else has, int64 [count]."""
        labels = torch.arange(self._count, self._count + count)
        self._count += count
        self._known_classes = None
        return labels

    def fresh_bare(self, count: int) -> Tensor:
        """Returns labels as `fresh` does, for a parameter that is no layer's and may hold channels or not."""
        self._bare.append((self._count, self._count + count))
        return self.fresh(count)

    def bare(self, labels: Tensor) -> Tensor:
        """Returns which labels were given to bare parameters, of the labels' shape."""
        found = torch.zeros_like(labels, dtype=torch.bool)
        for first, stop in self._bare:
            found |= (labels >= first) & (labels < stop)
        return found

    def tie(self, left: Tensor, right: Tensor) -> None:
        """Ties the labels that meet in two label tensors of shapes that broadcast."""
        one, two = (side.numpy() for side in torch.broadcast_tensors(left, right))
        differ = (one != two) & (one != 0) & (two != 0)
        if differ.any():
            self._ties.append(np.stack([one[differ], two[differ]]))
            self._known_classes = None

    def tie_lines(self, lines: Tensor) -> None:
        """Ties all labels within each line of [lines, length]."""
        first = lines.max(dim=1, keepdim=True).values
        self.tie(first, lines)

    def keep_rectangular(self, labels: Tensor, axis: int | None = None) -> None:
        """Demands that a cut removes whole slices of a tensor, along one axis [our choice].

        A reshape of channels to [groups, slots] stays correct if every group loses the same slots, or if whole groups
        are lost. Nothing is tied where other ties make slices along any one axis possible.

        Args:
            labels: Labels whose axes are all longer than 1.
            axis: The axis along which to cut; the longest where nothing says which.
        """
        longest = max(range(labels.ndim), key=lambda axis: (labels.shape[axis], axis))
        self._grids.append(labels.movedim(longest if axis is None else axis, 0).numpy())
        self._known_classes = None

    def keep_balanced(self, pieces: Tensor) -> None:
        """Demands that each of some pieces [pieces, length] loses as many channels as every other [our choice].

        Code that halves its channels (``chunk``) finds the middle of what a cut leaves.
        """
        self._pieces.append(pieces.numpy())
        self._known_classes = None

    def keep_together(self, lines: Tensor, reason: str, inexact: bool = False) -> None:
        """Demands that the labels of each line [lines, length] are in one class; otherwise they cannot be cut.

        Args:
            lines: The labels.
            reason: Why labels of different classes cannot be cut.
            inexact: Whether a cut would run, and would only change what stays.
        """
        first = lines.max(dim=1, keepdim=True).values
        lines = lines[((lines != first) & (lines != 0)).any(dim=1)]
        if len(lines):
            self._together.append(_Together(lines.unique(dim=0).numpy(), reason, inexact))

    def mark(self, labels: Tensor, reason: str, inexact: bool = False) -> None:
        """Says that labels cannot be cut; arguments as for `keep_together`."""
        found = labels.unique().numpy()
        found = found[found != 0]
        if len(found):
            self._marks.append((found, reason, inexact))

    def are_together(self, lines: Tensor) -> Tensor:
        """Returns which lines [lines, length] hold labels of one class, as far as ties are known by now: [lines].

        What mixes labels of several classes belongs to none of them.
        """
        first = lines.max(dim=1, keepdim=True).values
        if bool(((lines == first) | (lines == 0)).all()):
            return torch.ones(len(lines), dtype=torch.bool)
        if self._known_classes is None:
            before = list(self._ties)
            self._known_classes = self._meet_demands()
            self._ties = before
        of = torch.as_tensor(self._known_classes)
        return ((of[lines] == of[first]) | (lines == 0)).all(dim=1)

    def classes(self) -> Classes:
        """Divides all labels into classes."""
        of = self._meet_demands()
        reasons: dict[int, str] = {}
        inexact: dict[int, str] = {}
        for found, reason, soft in self._marks:
            _note(inexact if soft else reasons, of[found], reason)
        for demand in self._together:
            first = of[demand.lines.max(axis=1, keepdims=True)]
            differ = (of[demand.lines] != first) & (demand.lines != 0)
            broken = demand.lines[differ.any(axis=1)]
            _note(inexact if demand.inexact else reasons, of[broken[broken != 0]], demand.reason)
        return Classes(of, reasons, inexact)

    def _meet_demands(self) -> IntArray:
        """Ties what the demands ask for; returns the class of each label."""
        of, missing = self._components(), True
        while missing:
            self._tick("the classes of its channels")
            ties = [_column_ties(of, grid) for grid in self._grids]
            ties += [_balancing_ties(of, pieces) for pieces in self._pieces]
            missing = any(tie.size for tie in ties)
            if missing:
                # One demand at a time: what it ties may meet the next one.
                self._ties.append(next(tie for tie in ties if tie.size))
                of = self._components()
        return of

    def _components(self) -> IntArray:
        if not self._ties:
            return np.arange(self._count)
        # Keep only the united ties, so that the next call has few.
        ties = np.concatenate(self._ties, axis=1)
        graph = coo_array((np.ones(ties.shape[1], dtype=np.bool_), (ties[0], ties[1])), shape=(self._count,) * 2)
        _, of = connected_components(graph, directed=False)
        self._ties = [ties]
        return np.asarray(of, dtype=np.int64)


def _note(reasons: dict[int, str], classes: IntArray, reason: str) -> None:
    for number in np.unique(classes).tolist():
        reasons.setdefault(number, reason)


def _column_ties(of: IntArray, grid: IntArray) -> IntArray:
    """Returns the ties that make the classes of a grid depend on its first axis; none if they depend on one axis."""
    classes = of[grid]
    if any(_depends_on(classes, axis) for axis in range(grid.ndim)):
        return np.zeros((2, 0), dtype=np.int64)
    columns = grid.reshape(len(grid), -1)
    first = np.broadcast_to(columns.max(axis=1, keepdims=True), columns.shape)
    differ = (columns != 0) & (of[columns] != of[first])
    return np.stack([columns[differ], first[differ]])


def _balancing_ties(of: IntArray, pieces: IntArray) -> IntArray:
    """Returns ties after which every class has as many channels in each piece as in the first; none if it has.

    A class with a surplus in one piece is tied to classes with a surplus in the other, the largest surpluses and the
    first channels first, so that few classes grow [our choice].
    """
    ties: list[tuple[int, int]] = []
    for other in pieces[1:]:
        labels, first = np.unique(np.concatenate([pieces[0], other]), return_index=True)
        classes, of_label = np.unique(of[labels], return_inverse=True)
        surplus = np.zeros(len(classes), dtype=np.int64)
        for piece, sign in ((pieces[0], 1), (other, -1)):
            np.add.at(surplus, of_label[np.searchsorted(labels, piece)], sign * (piece != 0))
        place = np.full(len(classes), len(pieces[0]) * 2)
        np.minimum.at(place, of_label, first)
        some = dict(zip(of_label.tolist(), labels.tolist(), strict=True))
        here, there = (
            deque(sorted(np.flatnonzero(sign * surplus > 0), key=lambda c: (-abs(surplus[c]), place[c])))
            for sign in (1, -1)
        )
        left = np.abs(surplus)
        while here and there:
            one, two = here[0], there[0]
            ties.append((some[one], some[two]))
            matched = min(left[one], left[two])
            for side, number in ((here, one), (there, two)):
                left[number] -= matched
                if not left[number]:
                    side.popleft()
    return np.asarray(ties, dtype=np.int64).reshape(-1, 2).T


def _depends_on(classes: IntArray, axis: int) -> bool:
    lines = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
    return bool((lines == lines[:, :1]).all())


def core(labels: Tensor) -> Tensor:
    """Returns labels with the axes of length 1 along which all entries share their memory: they are constant there."""
    for axis, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if stride == 0 and size > 1:
            labels = labels.narrow(axis, 0, 1)
    return labels


def compressed(labels: Tensor) -> Tensor:
    """Returns the same labels with stride 0 along every axis on which they are constant."""
    shape, labels = labels.shape, core(labels)
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels.narrow(axis, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels.expand(shape)


def lines_along(labels: Tensor, axes: Sequence[int]) -> Tensor:
    """Returns labels as lines [rest, length] along some axes; constant axes shrink to one entry."""
    labels = core(labels)
    axes = [axis % labels.ndim for axis in axes]
    rest = [axis for axis in range(labels.ndim) if axis not in axes]
    length = 1
    for axis in axes:
        length *= labels.shape[axis]
    return labels.permute(*rest, *axes).reshape(-1, length)
