"""Sparse training with `cdp` on the digits: a third of the stripes goes at no loss, by a threshold for each filter."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from penalised import context_of
from torch import Tensor, nn
from toy import TASK, digits_config

from prune_env.data import Splits
from prune_env.env.loading import load_splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.evaluation.measuring import measure
from prune_env.granularity.stripe.skeleton import DynamicThreshold, skeletons_of
from prune_env.recover import Batches, Trainer, Workers
from prune_env.recover.penalties import TexturePenalty

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
EPOCHS = 15


def plain_network() -> nn.Sequential:
    """Four convolutions with batch norms for grey images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2)):
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


@pytest.fixture(scope="module")
def splits() -> Splits:
    """All digits: 450 of them are the test set."""
    return load_splits(digits_config("data.test_images=null", "data.reward_images=100", "data.calibration_images=100"))


def accuracy(model: nn.Module, splits: Splits) -> float:
    batches = (batch for part in splits.test_batches(512) for batch in part.batches(512))
    return measure(deepcopy(model).eval(), batches, TASK).quality


@pytest.fixture(scope="module")
def dense(splits: Splits) -> nn.Module:
    return trained(plain_network(), splits, None)


def trained(model: nn.Module, splits: Splits, penalty: TexturePenalty | None) -> nn.Module:
    settings = context_of(model, batch_size=64, epochs=EPOCHS, learning_rate=0.05).settings
    indices = np.setdiff1d(np.arange(1347), splits.reward_indices)
    batches = Batches(source=splits.source, indices=indices, settings=settings, seed=0, workers=Workers(CPU), task=TASK)
    execution = ExecutionSettings.for_training("contiguous", "float32")
    trainer = Trainer(model, batches, settings, 0, Workers(CPU), execution, trainable=penalty)
    for _ in range(EPOCHS):
        trainer.run_epoch()
    return trainer.result


@pytest.fixture(scope="module")
def sparse(dense: nn.Module, splits: Splits) -> nn.Module:
    """The network after a sparse training, with its skeletons."""
    context = context_of(deepcopy(dense), epochs=EPOCHS, strength=0.007, threshold=0.3)
    penalty = TexturePenalty(replace(context, images=splits.reward().images[:1]))
    return trained(penalty.network(deepcopy(dense)), splits, penalty)


def dead_share(masks: list[Tensor]) -> float:
    return float(torch.cat([mask.flatten() for mask in masks]).logical_not().float().mean())


def test_a_third_of_the_stripes_goes_at_less_than_a_point_of_accuracy(
    dense: nn.Module, sparse: nn.Module, splits: Splits
) -> None:
    assert dead_share([one.mask for one in skeletons_of(sparse).values()]) > 0.3
    assert accuracy(dense, splits) > 0.95
    assert accuracy(sparse, splits) > accuracy(dense, splits) - 0.01


def test_thresholds_of_filters_cut_other_layers_than_one_constant_at_equal_total(sparse: nn.Module) -> None:
    strengths = [one.strengths.detach() for one in skeletons_of(sparse).values()]
    dynamic = [DynamicThreshold(0.5, relative=True).staying(one) for one in strengths]
    relative = [one.abs() / one[one != 0].abs().mean() for one in strengths]
    values = torch.cat([one.flatten() for one in relative])
    cut = round(dead_share(dynamic) * len(values))
    constant = [one > values.sort().values[cut - 1] for one in relative]
    assert dead_share(constant) == pytest.approx(dead_share(dynamic), abs=1e-3)
    shares = [[dead_share([mask]) for mask in masks] for masks in (dynamic, constant)]
    assert max(abs(one - other) for one, other in zip(*shares, strict=True)) > 0.02
