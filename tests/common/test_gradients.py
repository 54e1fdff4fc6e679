"""Networks that cannot be trained are refused with what to do."""

import pytest
import torch
from torch import nn

from prune_env.common.errors import ModelError
from prune_env.common.gradients import backward, refuse_frozen


def test_a_network_in_which_everything_is_frozen_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).requires_grad_(False)
    with pytest.raises(
        ModelError, match=r"requires_grad is False for all 4, such as '0\.weight'.*requires_grad_\(True"
    ):
        refuse_frozen(model)


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="No parameter of the network can be trained: it has none"):
        refuse_frozen(nn.ReLU())


def test_one_parameter_to_train_is_enough() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).requires_grad_(False)
    model[1].bias.requires_grad_(True)
    refuse_frozen(model)


def test_a_loss_that_depends_on_no_parameter_is_refused() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        loss = layer(torch.ones(1, 2)).sum()
    with pytest.raises(ModelError, match=r"No gradient reaches a parameter.*Remove torch\.no_grad\(\)"):
        backward(loss)
    backward(layer(torch.ones(1, 2)).sum())
    assert torch.equal(layer.weight.grad, torch.ones(1, 2))
