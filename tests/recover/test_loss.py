"""The training loss against its formulas, written out."""

import pytest
import torch
from practice import settings_of
from torch import Tensor
from toy import TASK

from prune_env.config.training import FinetuneSection, PretrainSection, TrainingSection
from prune_env.data import Batch
from prune_env.recover import training_loss

LABELS = torch.tensor([2, 0, 1, 2, 2, 1])


def loss_of(logits: Tensor, settings: TrainingSection, teacher: Tensor | None = None) -> Tensor:
    return training_loss(logits, Batch(torch.zeros(len(LABELS), 1, 1, 1), LABELS), settings, TASK, teacher)


def scores(seed: int, size: float = 2.0) -> Tensor:
    return size * torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(seed))


def hard_by_hand(logits: Tensor, smoothing: float = 0.0) -> Tensor:
    share = torch.full_like(logits, smoothing / 3)
    share[torch.arange(len(LABELS)), LABELS] += 1.0 - smoothing
    return -(share * logits.log_softmax(1)).sum(1).mean()


def soft_by_hand(logits: Tensor, teacher: Tensor, warm: float) -> Tensor:
    aim = torch.exp(teacher / warm) / torch.exp(teacher / warm).sum(1, keepdim=True)
    ours = torch.exp(logits / warm) / torch.exp(logits / warm).sum(1, keepdim=True)
    return (aim * (aim / ours).log()).sum(1).mean() * warm * warm


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_without_a_teacher_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing: float) -> None:
    loss = loss_of(scores(0), TrainingSection(label_smoothing=smoothing))
    torch.testing.assert_close(loss, hard_by_hand(scores(0), smoothing))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("warm", [1.0, 4.0])
def test_with_a_teacher_the_loss_is_the_weighted_sum_of_cross_entropy_and_distillation(
    weight: float, warm: float
) -> None:
    settings = settings_of(distillation=weight, temperature=warm, label_smoothing=0.1)
    expected = (1.0 - weight) * hard_by_hand(scores(0), 0.1) + weight * soft_by_hand(scores(0), scores(1), warm)
    torch.testing.assert_close(loss_of(scores(0), settings, scores(1)), expected)


def test_a_training_without_distillation_looks_at_no_teacher() -> None:
    loss = loss_of(scores(0), PretrainSection(), scores(1))
    torch.testing.assert_close(loss, hard_by_hand(scores(0)))


def test_an_output_like_the_teacher_s_costs_nothing() -> None:
    settings = settings_of(distillation=1.0)
    shifted = scores(0) + 5.0
    assert abs(float(loss_of(scores(0), settings, shifted))) < 1e-5
    assert float(loss_of(scores(0), settings, scores(1))) > 0.1


def test_gradients_are_of_one_size_at_every_high_temperature() -> None:
    sizes = []
    for warm in (20.0, 200.0):
        logits = scores(0).requires_grad_()
        loss_of(logits, settings_of(distillation=1.0, temperature=warm), scores(1)).backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] > 0.1
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_low_precision_scores_are_compared_in_float32() -> None:
    logits, teacher = (scores(seed).bfloat16() for seed in (0, 1))
    settings = FinetuneSection()
    loss = loss_of(logits, settings, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(logits.float(), settings, teacher.float()))
