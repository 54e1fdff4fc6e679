import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_env.common.errors import DataError, DataWarning, RunError
from prune_env.common.records import read_record, to_file
from prune_env.data import ArraySource, LabelledArrays, Splits, load_source, make_splits
from prune_env.data.splits import SplitsRecord


def source_with(counts: list[int]) -> ArraySource:
    """Images whose single pixel is their own index, with the given number of each class, shuffled."""
    labels = np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1)
    arrays = LabelledArrays.from_arrays(images, labels, "made up")
    return ArraySource("made up", len(counts), arrays, arrays, (0.0,), (1.0,), maximum=1.0)


def class_counts(source: ArraySource, indices: np.ndarray) -> np.ndarray:
    return np.bincount(source.targets("train")[indices], minlength=source.classes)


@st.composite
def requests(draw: st.DrawFn) -> tuple[ArraySource, int, int, int]:
    """A data set, and sizes for which balanced sets can always be drawn."""
    counts = draw(st.lists(st.integers(6, 20), min_size=2, max_size=6))
    reward = draw(st.integers(1, 3 * len(counts)))
    calibration = draw(st.integers(0, 2 * len(counts)))
    return source_with(counts), reward, calibration, draw(st.integers(0, 2**32))


@given(request=requests())
@settings(deadline=None)
def test_sets_are_disjoint_balanced_and_complete(request: tuple[ArraySource, int, int, int]) -> None:
    source, reward, calibration, seed = request
    splits = make_splits(source, reward, calibration, seed)
    assert (len(splits.reward_indices), len(splits.calibration_indices)) == (reward, calibration)
    together = np.concatenate([splits.reward_indices, splits.calibration_indices, splits.train_indices])
    assert np.array_equal(np.sort(together), np.arange(len(source.targets("train"))))
    for indices in (splits.reward_indices, splits.calibration_indices):
        assert np.ptp(class_counts(source, indices)) <= 1
        assert indices.dtype == np.int64


@given(request=requests(), test_images=st.none() | st.integers(1, 12))
@settings(deadline=None)
def test_same_seed_draws_the_same_images(request: tuple[ArraySource, int, int, int], test_images: int | None) -> None:
    first, second = (make_splits(*request, test_images=test_images) for _ in range(2))
    assert first.record() == second.record()


def test_another_seed_draws_other_images() -> None:
    digits = load_source("digits")
    first, second = (make_splits(digits, 300, 100, seed, test_images=100) for seed in (0, 1))
    for kind in ("reward", "calibration", "test"):
        assert getattr(first.record(), kind) != getattr(second.record(), kind)


def test_test_set_does_not_depend_on_the_other_sets() -> None:
    digits = load_source("digits")
    first = make_splits(digits, 300, 100, seed=0, test_images=50)
    second = make_splits(digits, 200, 0, seed=0, test_images=50)
    assert first.record().test == second.record().test
    assert np.ptp(np.bincount(digits.targets("test")[first.test_indices])) == 0


@pytest.fixture(scope="module")
def digits_splits() -> Splits:
    return make_splits(load_source("digits"), 300, 100, seed=3)


def test_sets_hold_the_images_of_their_indices(digits_splits: Splits) -> None:
    for images, indices in (
        (digits_splits.reward(), digits_splits.reward_indices),
        (digits_splits.calibration(), digits_splits.calibration_indices),
    ):
        assert len(images) == len(indices)
        assert images.targets.dtype == torch.int64
        assert images.targets.tolist() == digits_splits.source.targets("train")[indices].tolist()
        assert torch.equal(images.images, digits_splits.source.load("train", indices))


def test_images_stand_in_random_order(digits_splits: Splits) -> None:
    """Batch-norm statistics are measured batch by batch, so a batch must not contain one class only."""
    assert len(set(digits_splits.calibration().targets[:20].tolist())) > 4


def test_test_batches_walk_the_whole_test_split_in_order(digits_splits: Splits) -> None:
    batches = list(digits_splits.test_batches(128))
    assert [len(batch) for batch in batches] == [128, 128, 128, 66]
    labels = torch.cat([batch.targets for batch in batches]).numpy()
    assert np.array_equal(labels, digits_splits.source.targets("test"))


def test_record_is_json_and_lists_the_indices(digits_splits: Splits) -> None:
    record = json.loads(to_file(digits_splits.record()))
    assert record["source"] == "digits"
    assert record["reward"] == digits_splits.reward_indices.tolist()
    assert record["calibration"] == digits_splits.calibration_indices.tolist()
    assert record["test"] == list(range(450))
    assert record["train_images"] == 1347 - 300 - 100


def test_indices_cannot_be_changed(digits_splits: Splits) -> None:
    with pytest.raises(ValueError, match="read-only"):
        digits_splits.reward_indices[0] = 0


@pytest.mark.parametrize(
    ("reward", "calibration", "test", "message"),
    [
        (25, 0, None, r"data\.reward_images=25 is too large: 24 images are left"),
        (15, 10, None, r"data\.calibration_images=10 is too large: 9 images are left"),
        (3, 0, 25, r"data\.test_images=25 is too large: 24 images are left"),
        (0, 3, None, r"data\.reward_images=0 must be at least 1"),
        (3, -1, None, r"data\.calibration_images=-1 must be at least 0"),
        (3, 3, 0, r"data\.test_images=0 must be at least 1"),
    ],
)
def test_more_than_there_is_is_refused_with_the_numbers(
    reward: int, calibration: int, test: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_splits(source_with([5, 9, 10]), reward, calibration, seed=0, test_images=test)


def test_classes_of_unequal_size_give_what_they_have_and_it_is_told() -> None:
    source = source_with([5, 9, 10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = make_splits(source, 17, 0, seed=0)
    assert class_counts(source, splits.reward_indices).tolist() == [5, 6, 6]
    with pytest.warns(DataWarning, match=r"data\.reward_images=21: .* so 5 to 8 images of each were drawn"):
        splits = make_splits(source, 21, 0, seed=0)
    assert class_counts(source, splits.reward_indices).tolist() == [5, 8, 8]
    with pytest.warns(DataWarning, match="so 5 to 10 images"):
        everything = make_splits(source, 24, 0, seed=0)
    assert sorted(everything.reward_indices.tolist()) == list(range(24))


def test_a_thousand_reward_images_of_ten_unequal_classes_are_drawn() -> None:
    source = source_with([5, 60, 120, 200, 300, 400, 500, 600, 800, 1015])
    with pytest.warns(DataWarning):
        splits = make_splits(source, 1000, 256, seed=0)
    counts = class_counts(source, splits.reward_indices)
    assert (counts.sum(), counts[0]) == (1000, 3)
    assert np.ptp(counts[4:]) <= 1


def test_a_rare_class_leaves_images_to_the_other_sets() -> None:
    """4,000 images in 10 unequal classes, 5 in the smallest."""
    source = source_with([5, *[444] * 8, 443])
    with pytest.warns(DataWarning, match=r"data\.reward_images=1000: .* so 3 to 111 images of each were drawn"):
        splits = make_splits(source, 1000, 256, seed=0)
    parts = (splits.reward_indices, splits.calibration_indices, splits.train_indices)
    assert [len(part) for part in parts] == [1000, 256, 2744]
    assert [class_counts(source, part)[0] for part in parts] == [3, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"reward": [1, 1]}, {"calibration": [1]}, {"test": [4, 4]}, {"test": [2**63]}, {"reward": [-1]}],
    ids=["twice", "in two sets", "tested twice", "beyond 64 bits", "below 0"],
)
def test_a_record_of_impossible_sets_is_refused(wrong: dict[str, list[int]], tmp_path: Path) -> None:
    known = {"source": "digits", "reward": [1], "calibration": [2], "test": [1, 2], "train_images": 3}
    place = tmp_path / "splits.json"
    place.write_text(json.dumps(known))
    assert read_record(place, SplitsRecord).reward == [1]
    place.write_text(json.dumps({**known, **wrong}))
    with pytest.raises(RunError, match=r"splits\.json' is damaged: "):
        read_record(place, SplitsRecord)
