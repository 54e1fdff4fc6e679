"""Gradients that are written out have the digits of autograd's, and the steps those of torch's optimiser."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.agents.updates import Chain, FusedAdam, squares_gradient


def network(inputs: int, bounded: bool) -> nn.Sequential:
    torch.manual_seed(0)
    last = [nn.Tanh()] if bounded else []
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), *last)


def rows_of(inputs: int, count: int = 16, steps: int = 27) -> Tensor:
    return torch.randn(count, steps, inputs, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("inputs", [16, 17])
def test_the_gradients_of_a_chain_are_those_of_autograd(inputs: int, bounded: bool) -> None:
    layers, rows = network(inputs, bounded), rows_of(inputs)
    chain, wanted = Chain(layers), torch.randn(16, 27, 1, generator=torch.Generator().manual_seed(2))
    read = rows.clone().requires_grad_()
    loss = F.mse_loss(layers(read), wanted)
    *expected, of_input = torch.autograd.grad(loss, [*layers.parameters(), read])
    with torch.no_grad():
        found = chain.forward(rows.flatten(0, 1))
        gradient = squares_gradient(found[-1], wanted.flatten(0, 1), torch.ones(()))
        gradients, before = chain.gradients(found, gradient), chain.input_gradient(found, gradient)
    assert torch.equal(found[-1].view(16, 27, 1), layers(rows))
    for one, other in zip(gradients, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(before.view_as(of_input), of_input)


def test_the_steps_are_those_of_the_optimiser_and_follow_its_rate() -> None:
    ours, theirs = network(17, False), network(17, False)
    optimisers = [torch.optim.Adam(layers.parameters(), lr=1e-3, fused=True) for layers in (ours, theirs)]
    steps, start = FusedAdam(optimisers[0]), copy.deepcopy(ours.state_dict())
    for number in range(5):
        gradients = [torch.full_like(one, 0.1 * (number + 1)) for one in ours.parameters()]
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = 1e-3 * (number + 1)
        with torch.no_grad():
            steps.step(gradients)
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimisers[1].step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(start["0.weight"], ours[0].weight)
