"""Labels through random movements say what zeroing a channel shows: which input channels of the next layer change."""

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import mask_difference, random_plan

from prune_env import LayerWalk

CHANNELS = 6
"""Channels of the first convolution, on images of 4x4."""

Movement = Callable[[Tensor], Tensor]


@st.composite
def movements(draw: st.DrawFn, shape: tuple[int, ...]) -> Movement:
    """Draws a movement of a map [N, C, H, W] of the given shape."""
    channels, height, width = shape[1:]
    place = draw(st.integers(1, channels - 1)) if channels > 1 else 0
    axis = draw(st.integers(1, 3))
    amount = draw(st.integers(1, 3))
    order = draw(st.permutations(range(channels)))
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    value = draw(st.sampled_from([0.0, 1.5]))
    groups = draw(st.sampled_from([d for d in range(1, channels + 1) if channels % d == 0]))
    kinds: dict[str, Movement] = {
        "split": lambda x: torch.cat(x.split([place, x.shape[1] - place], 1)[::-1], 1),
        "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        "order": lambda x: x[:, order],
        "shuffle": lambda x: x.view(len(x), groups, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
        "slice": lambda x: x[:, place:],
        "steps": lambda x: x[:, ::2],
        "slice of rows": lambda x: x[:, :, 1:] if x.shape[2] > 1 else x,
        "twice": lambda x: torch.cat([x, x], 1),
        "beside zeros": lambda x: torch.cat([x, torch.zeros_like(x[:, :1])], 1),
        "into zeros": lambda x: _into_zeros(x, before),
        "pad": lambda x: F.pad(x, (0, 0, 0, 0, before, after), value=value),
        "pad of positions": lambda x: F.pad(x, (1, 0, 0, 1), value=value),
        "rows for columns": lambda x: x.permute(0, 1, 3, 2),
        "rows for channels": lambda x: x.transpose(1, 2),
        "flip": lambda x: x.flip(axis),
        "roll": lambda x: x.roll(amount, axis),
        "stack": lambda x: torch.stack([x, x.flip(1)], 2).flatten(1, 2),
        "rows into channels": lambda x: x.reshape(len(x), x.shape[1] * x.shape[2], 1, -1),
        "pixels": lambda x: F.pixel_unshuffle(x, 2) if x.shape[2] % 2 == x.shape[3] % 2 == 0 else x,
    }
    large = channels * height * width > 500
    names = [name for name in kinds if not (large and name in ("twice", "stack", "pad of positions"))]
    return kinds[draw(st.sampled_from(names))]


def _into_zeros(images: Tensor, first: int) -> Tensor:
    result = images.new_zeros(len(images), images.shape[1] + 3, *images.shape[2:])
    result[:, first : first + images.shape[1]] = images
    return result


class Moved(nn.Module):
    """A convolution, movements, and a convolution that reads what they give."""

    def __init__(self, steps: list[Movement], read: int) -> None:
        super().__init__()
        self.steps = steps
        self.a = nn.Conv2d(3, CHANNELS, 1)
        self.z = nn.Conv2d(read, 4, 1)
        self.fc = nn.Conv2d(4, 2, 1)

    def move(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.z(self.move(self.a(images))).mean((2, 3), keepdim=True))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_members_are_what_zeroing_channels_shows(data: st.DataObject) -> None:
    torch.manual_seed(0)
    images, steps = torch.randn(1, 3, 4, 4), []
    moved = torch.randn(1, CHANNELS, 4, 4)
    for _ in range(data.draw(st.integers(1, 4), label="steps")):
        steps.append(data.draw(movements(tuple(moved.shape))))
        moved = steps[-1](moved)
    assume(moved.shape[1] > 1)  # a single channel that reads all of them can only be kept
    net = Moved(steps, moved.shape[1])

    walk = LayerWalk.trace(net, images)

    reached = _reached(net, images)
    cut: list[int] = []
    for unit in walk.units:
        places = {(member.module, member.side): member.index for member in unit.members}
        if ("a", "out") not in places:
            continue
        for channel, own in enumerate(places["a", "out"]):
            read = places["z", "in"][channel] if ("z", "in") in places else np.zeros(0, dtype=np.int64)
            changed = set().union(*(reached[one] for one in own.tolist()))
            assert changed <= set(read.tolist())
            # Padded positions that become channels go with the channel that they were put beside.
            assert not (set(read.tolist()) - changed) & set().union(*reached)
        cut += places["a", "out"].ravel().tolist()
    assert sorted(cut) == list(range(CHANNELS))
    for seed in range(2):
        assert mask_difference(walk, random_plan(walk, seed), torch.randn(2, 3, 4, 4)) <= 1e-4


def _reached(net: Moved, images: Tensor) -> list[set[int]]:
    """For each channel of the first convolution, the channels of the last map that change where it is zeroed."""
    with torch.no_grad():
        written = net.a(images)
        dense = net.move(written.clone())
        changed = []
        for channel in range(CHANNELS):
            zeroed = written.clone()
            zeroed[:, channel] = 0
            changed.append(set((net.move(zeroed) != dense).flatten(2).any(2)[0].nonzero().ravel().tolist()))
    return changed
