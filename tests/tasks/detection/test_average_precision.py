"""Average precision: against torchmetrics with faster-coco-eval, to four digits, and against cases by hand."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from prune_env.tasks.detection.average_precision import THRESHOLDS, AveragePrecision

Images = tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]


def some_images(count: int, seed: int, classes: int = 4, wrong: float = 0.3) -> Images:
    """Random objects, and detections that lie near some of them or anywhere; a few images have neither."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    found, targets = [], []
    for _ in range(count):
        objects = int(7 * draw(1))
        corners, sides = 80 * draw(objects, 2), 5 + 60 * draw(objects, 2)
        boxes, labels = torch.cat([corners, corners + sides], 1), 1 + (classes * draw(objects)).long()
        near = boxes + 0.15 * sides.repeat(1, 2) * (draw(objects, 4) - 0.5).mul(2)
        stray = int(9 * draw(1))
        places = 90 * draw(stray, 2)
        strays = torch.cat([places, places + 5 + 40 * draw(stray, 2)], 1)
        kinds = torch.where(draw(objects) < wrong, 1 + (classes * draw(objects)).long(), labels)
        all_boxes = torch.cat([near, near.flip(0)[: objects // 2], strays])
        all_labels = torch.cat([kinds, kinds.flip(0)[: objects // 2], 1 + (classes * draw(stray)).long()])
        found.append({"boxes": all_boxes, "labels": all_labels, "scores": draw(len(all_boxes))})
        targets.append({"boxes": boxes, "labels": labels})
    return found, targets


def ours(images: Images, metric: AveragePrecision) -> float:
    for found, target in zip(*images, strict=True):
        metric.add(found, target)
    return metric.compute()


def the_library_s(images: Images) -> Mapping[str, float]:
    detection = pytest.importorskip("torchmetrics.detection")
    pytest.importorskip("faster_coco_eval")
    # COCO's own recalls are of 64 bits; the default of torchmetrics rounds them to 32.
    recalls = np.linspace(0.0, 1.0, 101).tolist()
    metric = detection.MeanAveragePrecision(backend="faster_coco_eval", rec_thresholds=recalls)
    metric.warn_on_many_detections = False
    metric.update(*images)
    return {key: float(value) for key, value in metric.compute().items() if value.numel() == 1}


@pytest.mark.parametrize(("count", "seed", "classes"), [(60, 0, 4), (25, 1, 1), (120, 2, 12), (3, 3, 30)])
def test_is_that_of_torchmetrics_to_four_digits(count: int, seed: int, classes: int) -> None:
    images = some_images(count, seed, classes)
    expected = the_library_s(images)
    assert 0.02 < expected["map"] < 0.98
    assert ours(images, AveragePrecision()) == pytest.approx(expected["map_50"], abs=5e-5)
    assert ours(images, AveragePrecision("map", "mAP", THRESHOLDS)) == pytest.approx(expected["map"], abs=5e-5)


def test_of_more_than_a_hundred_detections_of_a_class_the_best_hundred_count_as_there() -> None:
    found, targets = some_images(4, 5, 2)
    generator = torch.Generator().manual_seed(0)
    corners = 80 * torch.rand(260, 2, generator=generator)
    many = {
        "boxes": torch.cat([found[0]["boxes"], torch.cat([corners, corners + 20], 1)]),
        "labels": torch.cat([found[0]["labels"], torch.ones(260, dtype=torch.int64)]),
        "scores": torch.rand(len(found[0]["scores"]) + 260, generator=generator),
    }
    images = ([many, *found[1:]], targets)
    assert ours(images, AveragePrecision()) == pytest.approx(the_library_s(images)["map_50"], abs=5e-5)


def image(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


SQUARE = [0, 0, 10, 10]
OBJECT = image([SQUARE], [1], [])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (image([SQUARE], [1], [0.3]), 1.0),
        (image([SQUARE], [2], [0.3]), 0.0),
        (image([[0, 0, 10, 5.01]], [1], [0.3]), 1.0),
        (image([[0, 0, 10, 4.99]], [1], [0.3]), 0.0),
        (image([[20, 20, 30, 30], SQUARE], [1, 1], [0.9, 0.3]), 0.5),
        (image([SQUARE, [20, 20, 30, 30]], [1, 1], [0.9, 0.3]), 1.0),
        (image([SQUARE, SQUARE], [1, 1], [0.9, 0.8]), 1.0),
        (image([], [], []), 0.0),
    ],
    ids=["right", "class", "just", "not quite", "second", "first", "twice", "nothing"],
)
def test_of_one_object(found: Mapping[str, Tensor], expected: float) -> None:
    metric = AveragePrecision()
    metric.add(found, OBJECT)
    assert metric.compute() == pytest.approx(expected)


def test_of_no_object_at_all_is_0_and_reset_forgets() -> None:
    metric = AveragePrecision()
    assert metric.compute() == 0.0
    metric.add(image([SQUARE], [1], [0.9]), image([], [], []))
    assert metric.compute() == 0.0
    metric.reset()
    batch = SimpleNamespace(targets=[OBJECT])
    metric.update(SimpleNamespace(detections=[image([SQUARE], [1], [0.9])]), batch)  # type: ignore[arg-type]
    assert metric.compute() == 1.0


def test_does_not_depend_on_the_order_of_the_detections() -> None:
    found, targets = some_images(20, 7)
    mixed = [{key: value.flip(0) for key, value in one.items()} for one in found]
    assert ours((found, targets), AveragePrecision()) == ours((mixed, targets), AveragePrecision())
