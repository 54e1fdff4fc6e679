"""Gradients that are written out have the digits of autograd's, and the steps those of torch's optimiser."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.agents.updates import Adam, Chain, squares_gradient


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
    expected_parameters = copy.deepcopy(list(layers.parameters()))
    chain, wanted = Chain(layers), torch.randn(16, 27, 1, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(*pair) for pair in zip(layers.parameters(), expected_parameters, strict=True))
    read = rows.clone().requires_grad_()
    loss = F.mse_loss(layers(read), wanted)
    *expected, of_input = torch.autograd.grad(loss, [*layers.parameters(), read])
    with torch.no_grad():
        found = chain.forward(rows.flatten(0, 1))
        gradient = squares_gradient(found[-1], wanted.flatten(0, 1), torch.ones(()))
        room, before = chain.room(), chain.input_gradient(found, gradient)
        assert chain.gradients(found, gradient, room) is room.vector
    assert torch.equal(found[-1].view(16, 27, 1), layers(rows))
    for one, other in zip(room.parts, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(before.view_as(of_input), of_input)


def test_the_steps_are_those_of_the_optimiser_and_follow_its_rate() -> None:
    ours, theirs = network(17, False), network(17, False)
    chain = Chain(ours)
    given, optimiser = (torch.optim.Adam(layers.parameters(), lr=1e-3, fused=True) for layers in (ours, theirs))
    adam, start = Adam(chain, given), copy.deepcopy(ours.state_dict())
    for number in range(5):
        for one in (given, optimiser):
            one.param_groups[0]["lr"] = 1e-3 * (number + 1)
        gradient = torch.randn(chain.room().vector.shape, generator=torch.Generator().manual_seed(number))
        room = chain.room()
        adam.step(room.vector.copy_(gradient))
        for parameter, part in zip(theirs.parameters(), room.parts, strict=True):
            parameter.grad = part.clone()
        optimiser.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(start["0.weight"], ours[0].weight)
