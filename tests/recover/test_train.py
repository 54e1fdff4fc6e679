"""Training without a folder: the network learns from the training images only, and the seed decides the result."""

import pytest
import torch
from torch import Tensor
from toy import TASK, ToyResNet, WatchedSource, digits_splits

from prune_env.common.errors import EvaluationError, ModelError, UserError
from prune_env.config.training import PretrainSection
from prune_env.data import Splits, load_source, make_splits
from prune_env.recover import train_network

CPU = torch.device("cpu")


def network(seed: int = 0) -> ToyResNet:
    torch.manual_seed(seed)
    return ToyResNet(8, colours=1, classes=10)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """A few hundred of the digits to train on."""
    return make_splits(load_source("digits"), reward_images=600, calibration_images=400, seed=0)


def test_the_loss_falls(splits: Splits) -> None:
    losses: list[tuple[int, float]] = []
    model = network()
    settings = PretrainSection(epochs=4, batch_size=16)
    train_network(model, splits, settings, 0, CPU, TASK, lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4]
    assert losses[0][1] > losses[-1][1] * 1.5
    test = next(splits.test_batches(450))
    with torch.no_grad():
        assert (model(test.images).argmax(1) == test.targets).float().mean() > 0.6


def test_the_network_comes_back_ready_for_use(splits: Splits) -> None:
    model = network()
    train_network(model, splits, PretrainSection(epochs=1), 0, CPU, TASK)
    assert not any(module.training for module in model.modules())
    assert all(parameter.device == CPU for parameter in model.parameters())


def test_no_image_of_the_reward_calibration_or_test_set_is_used() -> None:
    whole = digits_splits()
    source = WatchedSource(whole.source)
    splits = Splits(
        source, whole.reward_indices, whole.calibration_indices, whole.train_indices[:100], whole.test_indices
    )
    train_network(network(), splits, PretrainSection(epochs=2), 0, CPU, TASK)
    assert source.loaded["test"] == []
    assert set(source.loaded["train"]) == set(whole.train_indices[:100].tolist())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(splits: Splits) -> None:
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        torch.manual_seed(torch.seed())
        train_network(model, splits, PretrainSection(epochs=1), seed, CPU, TASK)
    first, second, third = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_training_that_diverges_is_stopped_with_the_setting_to_lower(splits: Splits) -> None:
    settings = PretrainSection(epochs=3, learning_rate=1e20)
    with pytest.raises(
        EvaluationError, match=r"diverged in epoch 1, step \d+ of \d+: .*Lower learning_rate \(given 1e\+20\)"
    ):
        train_network(network(), splits, settings, 0, CPU, TASK)


def test_a_training_without_images_is_refused_with_the_settings_to_change(splits: Splits) -> None:
    empty = Splits(
        splits.source, splits.reward_indices, splits.calibration_indices, splits.train_indices[:0], splits.test_indices
    )
    with pytest.raises(UserError, match=r"pretrain\.epochs.*data\.reward_images"):
        train_network(network(), empty, PretrainSection(epochs=1), 0, CPU, TASK)


def test_a_frozen_network_is_refused_and_stays_as_it_is(splits: Splits) -> None:
    model, untouched = network().requires_grad_(False), network().state_dict()
    with pytest.raises(ModelError, match=r"No parameter of the network can be trained"):
        train_network(model, splits, PretrainSection(epochs=1), 0, CPU, TASK)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.state_dict().items())


def test_a_network_that_gives_no_gradients_is_refused(splits: Splits) -> None:
    class Detached(ToyResNet):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)

    with pytest.raises(ModelError, match=r"No gradient reaches a parameter"):
        train_network(Detached(8, colours=1, classes=10), splits, PretrainSection(epochs=1), 0, CPU, TASK)
