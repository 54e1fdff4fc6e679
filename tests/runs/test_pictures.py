"""Pictures of a task: of the same test images for every network, side by side, only where the task draws any."""

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from toy import TASK, digits_splits

from prune_env.runs.pictures import GAP, IMAGES, as_png, compared_pictures
from prune_env.tasks import Task, draws_pictures, pictures_of
from prune_env.tasks.classification import Classification


class Shown(Classification):
    """Classification with pictures whose grey is the output."""

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch.images.mean((1, 2, 3)))

    def pictures(self, source: Any, batch: Any, outputs: Tensor) -> list[NDArray[np.uint8]]:  # noqa: ARG002
        return [np.full((5, 7, 3), int(value), np.uint8) for value in outputs]


class Plus(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, means: Tensor) -> Tensor:
        assert not self.training
        return 100.0 + self.number + 20.0 * means


def drawn(seed: int, task: Task | None = None) -> NDArray[np.uint8] | None:
    evaluator: Any = SimpleNamespace(task=task or Shown(), device=torch.device("cpu"))
    return compared_pictures(evaluator, digits_splits(), {"one": Plus(0), "two": Plus(50).train()}, seed)


def test_columns_are_networks_and_rows_are_images_that_the_seed_chooses() -> None:
    picture = drawn(0)
    assert picture is not None
    assert picture.shape == (IMAGES * (5 + GAP), 2 * (7 + GAP), 3)
    left, right = picture[:: 5 + GAP, 0, 0].astype(int), picture[:: 5 + GAP, 7 + GAP, 0].astype(int)
    assert (right - left == 50).all()
    assert len(set(left.tolist())) > 1
    again, other = drawn(0), drawn(1)
    assert again is not None
    assert other is not None
    assert np.array_equal(picture, again)
    assert not np.array_equal(picture, other)
    assert np.array_equal(np.asarray(Image.open(BytesIO(as_png(picture)))), picture)


def test_a_task_without_pictures_has_none() -> None:
    assert not draws_pictures(TASK)
    assert draws_pictures(Shown())
    assert pictures_of(TASK, digits_splits().source, None, None) == []  # type: ignore[arg-type]
    assert compared_pictures(SimpleNamespace(task=TASK, device="cpu"), digits_splits(), {}, 0) is None  # type: ignore[arg-type]
