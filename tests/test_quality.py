"""Top-1, top-5 and loss of a network on a test set."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.quality import measure_quality


class Table(nn.Module):
    """Scores by the image's first value."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.dropped = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropped(self.rows[images[:, 0, 0, 0].long()])


def batches(labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    images = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1)
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("size", [1, 3, 40])
def test_it_is_that_of_the_scores_whatever_the_batches(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 9, generator=generator)
    labels = torch.randint(9, (40,), generator=generator)
    model = Table(scores).train()
    found = measure_quality(model, batches(labels, size))
    places = (scores > scores.gather(1, labels[:, None])).sum(dim=1)
    assert found.top1 == pytest.approx((places == 0).float().mean())
    assert found.top5 == pytest.approx((places < 5).float().mean())
    assert 0 < found.top1 < found.top5 < 1
    assert found.loss == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-5)
    assert model.training


def test_of_four_classes_the_right_one_is_always_among_five() -> None:
    scores = torch.eye(4)
    found = measure_quality(Table(scores), batches(torch.tensor([0, 1, 2, 0]), 4))
    assert (found.top1, found.top5) == (0.75, 1.0)
