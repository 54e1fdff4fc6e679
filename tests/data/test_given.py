"""Images that a user holds in Python: the forms that are taken, what goes to the network, and named refusals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from prune_env.common.errors import DataError
from prune_env.config.training import TrainingSection
from prune_env.data import GivenSource, given_source, make_splits
from prune_env.recover import Batches, Workers
from prune_env.tasks import make_task

IMAGES, LABELS = torch.randn(30, 3, 4, 6), torch.arange(30) % 3


class Pictures(Dataset[tuple[Tensor, int]]):
    """A data set without ``targets``; ``shift`` adds noise to each image, as an augmentation does."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read.append(index)
        return IMAGES[index] + self.shift * torch.rand(()), int(LABELS[index])


class Labelled(Pictures):
    """A data set that holds its labels as torchvision's do."""

    def __init__(self, targets: list[int]) -> None:
        super().__init__()
        self.targets = targets


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter(zip(IMAGES, LABELS.tolist(), strict=True))


FORMS: dict[str, Any] = {
    "tensors": (IMAGES, LABELS),
    "arrays": [IMAGES.numpy(), LABELS.numpy()[:, None]],
    "dataset": Pictures(),
    "tensor dataset": TensorDataset(IMAGES, LABELS),
    "list of pairs": list(zip(IMAGES, LABELS.tolist(), strict=True)),
    "shuffled loader": DataLoader(Pictures(), batch_size=7, shuffle=True),
    "loader with weights": DataLoader(Pictures(), sampler=WeightedRandomSampler([1.0] * 30, 5)),
    "loader of a stream": DataLoader(Stream(), batch_size=7),
    "stream": Stream(),
    "batches by the data set": DataLoader([(IMAGES[:20], LABELS[:20]), (IMAGES[20:], LABELS[20:])], batch_size=None),
    "double precision": (IMAGES.double(), LABELS.int()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_and_labels_as_they_are(form: str) -> None:
    source = given_source(FORMS[form])
    assert (source.classes, source.channels, source.size, source.varies) == (3, 3, (4, 6), False)
    assert np.array_equal(source.targets("train"), LABELS.numpy())
    images = source.load("train", np.array([29, 0, 7]))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, IMAGES[[29, 0, 7]])
    assert len(source.targets("test")) == 0
    assert source.load("test", np.empty(0, np.int64)).shape == (0, 3, 4, 6)


def test_a_sampler_s_choice_of_images_is_kept() -> None:
    chosen = [3, 4, 5, 20]
    whole = Pictures()
    train = DataLoader(whole, batch_size=2, sampler=SubsetRandomSampler(chosen))
    held_out = DataLoader(whole, sampler=SubsetRandomSampler([i for i in range(30) if i not in chosen]))
    source = given_source(train, held_out)
    assert source.targets("train").tolist() == LABELS[chosen].tolist()
    torch.testing.assert_close(source.load("train", np.arange(4)), IMAGES[chosen])
    assert len(source.targets("test")) == 26


def test_labels_that_a_data_set_holds_are_taken_where_they_are_those_of_its_images() -> None:
    right = Labelled(LABELS.tolist())
    assert given_source(Subset(right, range(10, 30))).targets("train").tolist() == LABELS[10:].tolist()
    # Each of at most 16 images is read twice, and no image is read for its label.
    assert len(set(right.read)) == 16
    # A target_transform renumbers the labels that the attribute holds.
    assert given_source(Labelled([7] * 30)).targets("train").tolist() == LABELS.tolist()


def test_images_that_vary_are_fixed_in_the_sets_and_drawn_anew_in_every_epoch() -> None:
    source = given_source(DataLoader(Pictures(shift=1.0), batch_size=4))
    assert source.varies
    splits = make_splits(source, 6, 6, seed=0)
    before = torch.get_rng_state()
    assert torch.equal(splits.reward().images, splits.reward().images)
    assert torch.equal(torch.get_rng_state(), before)
    workers, settings = Workers(torch.device("cpu")), TrainingSection(batch_size=6, epochs=2)
    batches = Batches(source, splits.train_indices, settings, 0, workers, make_task())
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        first, second = (torch.cat([batch.images for batch in batches.epoch(0)]) for _ in range(2))
        targets = torch.cat([batch.targets for batch in batches.epoch(0)])
        torch.manual_seed(0)
        again = torch.cat([batch.images for batch in batches.epoch(0)])
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    # The same order of images: only their variant differs, and each has its own label.
    found = [(image - IMAGES[splits.train_indices.copy()]).flatten(1).std(1).argmin() for image in first]
    assert targets.tolist() == LABELS[splits.train_indices.copy()][torch.stack(found)].tolist()


def test_boxes_are_taken_as_a_detector_s_targets() -> None:
    def target(index: int) -> dict[str, Any]:
        boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0]] * (index % 2))
        return {"boxes": boxes, "labels": torch.ones(index % 2), "id": index}

    items = [(IMAGES[index], target(index)) for index in range(8)]
    for train in (items, DataLoader(items, batch_size=3, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))):
        source: GivenSource = given_source(train, boxes=True)
        targets = source.targets("train")
        assert source.classes == 1
        assert [len(each["labels"]) for each in targets] == [0, 1] * 4
        assert targets[1]["labels"].dtype == torch.int64
        assert set(targets[1]) == {"boxes", "labels"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (IMAGES, "train: Tensor given; give a torch.utils.data.Dataset or DataLoader"),
        ("images/train", "train: str given"),
        ((IMAGES, LABELS[:5]), "train: 30 images but 5 labels"),
        ((IMAGES[:0], LABELS[:0]), "train: it holds no image"),
        (
            ((255 * IMAGES).byte(), LABELS),
            r"train: images are torch.uint8 of shape \[16, 3, 4, 6\]; needed",
        ),
        ((IMAGES[:, 0], LABELS), r"train: images are torch.float32 of shape \[16, 4, 6\]"),
        ((IMAGES, torch.eye(30)), r"train: labels are torch.float32 of shape \[30, 30\]; needed are whole numbers"),
        ((IMAGES, LABELS - 1), "train: a label is -1; number the classes from 0"),
        ([{"image": image} for image in IMAGES], "train: a batch is a dict; a pair"),
        ([(image, 0, 1) for image in IMAGES], "train: a batch is a list of 3; a pair"),
        ([(torch.zeros(3, side, 4), 0) for side in range(4, 8)], "train: reading images raised .*must have one size"),
    ],
)
def test_other_forms_are_refused_with_what_is_needed(given: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        given_source(given)


def test_test_images_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match=r"test: images are 3 x 4 x 5 .*, those of train 3 x 4 x 6"):
        given_source((IMAGES, LABELS), (IMAGES[..., :5], LABELS))
