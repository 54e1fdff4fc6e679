"""Batches of training images: an epoch shows each image once, in an order set by the seed and the epoch's number."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from practice import CPU, batches_of, noise_source, part_of, settings_of
from torch import Tensor
from toy import TASK, WatchedSource

from prune_env.common.errors import ConfigError
from prune_env.data import Batch, Indices, Split
from prune_env.recover import Batches, Workers


def made(batches: Batches, number: int) -> list[tuple[Tensor, Tensor]]:
    return list(batches.epoch(number))


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def numbers(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    """The images' numbers, read from their first values."""
    return [int(number) for images, _ in batches for number in images[:, 0, 0, 0]]


def test_an_epoch_shows_each_image_once_but_for_a_remainder() -> None:
    batches = batches_of(settings_of(batch_size=8), count=43)
    shown = made(batches, 1)
    assert len(batches) == len(shown) == 5
    assert [len(images) for images, _ in shown] == [8] * 5
    assert len(set(numbers(shown))) == 40
    assert {place for number in range(1, 9) for place in numbers(made(batches, number))} == set(range(43))


def test_images_come_with_their_own_labels() -> None:
    source = noise_source(40)
    shown = made(batches_of(settings_of(), source=source), 1)
    labels = torch.cat([labels for _, labels in shown])
    assert torch.equal(labels, torch.from_numpy(source.targets("train")[numbers(shown)]))


def test_only_the_images_given_are_shown() -> None:
    indices = np.array([3, 5, 8, 13, 21, 34])
    batches = Batches(noise_source(40), indices, settings_of(batch_size=2), 0, Workers(CPU), TASK)
    assert sorted(numbers(made(batches, 1))) == indices.tolist()


def test_an_epoch_follows_from_the_seed_and_its_number_alone() -> None:
    settings = settings_of(augment="crop_flip")
    batches = batches_of(settings, seed=4)
    made(batches, 1)
    torch.manual_seed(torch.seed())
    second = made(batches, 2)
    assert same(second, made(batches_of(settings, seed=4), 2))
    assert not same(second, made(batches, 3))
    assert not same(second, made(batches_of(settings, seed=5), 2))


class Drawn(type(TASK)):  # type: ignore[misc]
    """A task whose augmented images are their random numbers."""

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:  # noqa: ARG002
        return Batch(torch.cat([batch.images[:, 0, 0, :1], draws], dim=1), batch.targets)


def test_an_image_is_augmented_alike_in_batches_of_any_size() -> None:
    def drawn(**given: Any) -> dict[int, list[float]]:
        rows = torch.cat([rows for rows, _ in made(batches_of(settings_of(**given), task=Drawn()), 2)])
        return {int(number): rest for number, *rest in rows.tolist()}

    small, large = drawn(batch_size=3), drawn(batch_size=8)
    assert len(small) == 39
    assert all(small[number] == large[number] for number in small)
    assert len({tuple(row) for row in large.values()}) == 40


@pytest.mark.parametrize(("steps", "size"), [(1, 8), (5, 8), (7, 8), (16, 8), (3, 40)])
def test_an_epoch_of_many_steps_passes_over_the_images_evenly(steps: int, size: int) -> None:
    batches = batches_of(settings_of(batch_size=size), steps=steps)
    shown = made(batches, 1)
    assert len(batches) == len(shown) == steps
    counts = np.bincount(numbers(shown), minlength=40)
    assert counts.sum() == steps * size
    assert counts.max() - counts.min() <= 1


def test_the_parts_of_all_processes_are_the_batch_of_one() -> None:
    settings = settings_of(augment="resized_crop_flip")
    whole = made(batches_of(settings), 3)
    parts = [made(batches_of(settings, workers=part_of(rank, 2)), 3) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for rank, share in enumerate(shares):
            assert same([(batch[0][rank::2], batch[1][rank::2])], [share])


def test_images_read_as_needed_are_those_from_memory() -> None:
    settings = settings_of(augment="crop_flip")
    source = WatchedSource(noise_source(40))
    batches = batches_of(settings, source=source, largest=0)
    assert source.loaded == {"train": [], "test": []}
    for number in (1, 2):
        assert same(made(batches, number), made(batches_of(settings), number))
    assert len(source.loaded["train"]) == 80


def test_no_more_than_two_batches_are_read_ahead() -> None:
    source = WatchedSource(noise_source(40))
    coming = batches_of(settings_of(), source=source, largest=0).epoch(1)
    next(coming)
    next(coming)
    assert len(source.loaded["train"]) <= 24
    coming.close()


@pytest.mark.parametrize(("given", "usual"), [(None, "crop_flip"), ("none", "crop_flip"), ("crop_flip", "none")])
def test_images_are_varied_as_is_usual_with_the_data_unless_given(given: str | None, usual: str) -> None:
    settings = settings_of(augment=given)
    shown = made(batches_of(settings, source=noise_source(40, usual)), 1)
    assert same(shown, made(batches_of(settings_of(augment=given or usual)), 1))
    plain = made(batches_of(settings_of(augment="none")), 1)
    assert same(shown, plain) == (given == "none")


@pytest.mark.parametrize(("processes", "size"), [(1, 5), (2, 4), (5, 5)])
def test_fewer_images_than_a_batch_are_one_batch(processes: int, size: int) -> None:
    batches = batches_of(settings_of(batch_size=64), count=5, workers=part_of(0, processes))
    assert (batches.batch_size, len(batches)) == (size, 1)
    assert [len(images) for images, _ in batches.epoch(1)] == [size // processes]


@pytest.mark.parametrize(("processes", "size", "count"), [(3, 8, 40), (4, 8, 3), (2, 1, 40)])
def test_a_batch_that_cannot_be_shared_is_refused(processes: int, size: int, count: int) -> None:
    with pytest.raises(ConfigError, match=rf"batch_size: {size} given.*{processes} processes.*multiple of {processes}"):
        batches_of(settings_of(batch_size=size), count=count, workers=part_of(0, processes))


class SlowSource(WatchedSource):
    def load(self, split: Split, indices: Indices) -> Tensor:
        time.sleep(0.03)
        return super().load(split, indices)


def seconds_waited(source: Any, computing: float) -> float:
    batches = batches_of(settings_of(batch_size=10), source=source, largest=0)
    for _ in batches.epoch(1):
        time.sleep(computing)
    return batches.seconds


def test_the_time_that_images_are_waited_for_is_counted() -> None:
    idle = seconds_waited(SlowSource(noise_source(40)), 0.0)
    assert idle > 0.1
    # The thread reads images while the network computes, so only the first batch is waited for.
    assert seconds_waited(SlowSource(noise_source(40)), 0.08) < 0.7 * idle
