"""Kernel scores: a kernel's norm, and the variance that the kernel alone adds to its output."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import image_set
from zoo import Net, body, conv, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext
from prune_env.granularity.group.kernel_scores import KernelCriterion, KernelScores, score_kernels

KINDS: tuple[KernelCriterion, ...] = ("norm", "second_order")


def network(**settings: Any) -> Net:
    """A convolution ``m`` from 8 to 5 channels with a batch norm behind it."""
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "padding": 1, **settings}
    return body(lambda net, x: torch.relu(net.n(net.m(x))), 5, m=nn.Conv2d(8, 5, **settings), n=nn.BatchNorm2d(5))


def scores_of(kind: KernelCriterion, model: nn.Module, *names: str, batch: int = 5) -> KernelScores:
    """The scores, measured in several batches of unequal size."""
    images = image_set(12, colours=3)
    context = ScoringContext(LayerWalk.trace(model, small_images()), images, batch_size=batch)
    return score_kernels(kind, context, names or ("m",))


def folded_weight(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (convolution.weight * scale.reshape(-1, 1, 1, 1)).detach()


def read_by_m(model: Net) -> Tensor:
    with torch.no_grad():
        return torch.relu(model.eval().bn(model.a(image_set(12, colours=3).images)))


def test_the_norm_is_the_sum_of_the_squares_of_a_kernel_s_folded_weights() -> None:
    model = network()
    found = scores_of("norm", model, "a", "m", "z")
    expected = {
        "a": folded_weight(model.a, model.bn),
        "m": folded_weight(model.m, model.n),
        "z": model.z.weight.detach(),
    }
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], weight.double().square().sum((2, 3)).numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": 1, "padding": 0, "stride": 2, "bias": False},
        {},
        {"padding": 0},
        {"stride": 2},
        {"kernel_size": (3, 1), "padding": (2, 0), "stride": (1, 2)},
        {"padding": 2, "dilation": 2},
        {"padding_mode": "reflect"},
    ],
    ids=str,
)
def test_second_order_is_the_variance_of_what_one_kernel_adds_to_its_output(settings: dict[str, Any]) -> None:
    model = network(**settings)
    found = scores_of("second_order", model)["m"]
    images, weight = read_by_m(model), folded_weight(model.m, model.n)
    expected = np.empty((5, 8))
    for number in range(8):
        alone = nn.Conv2d(1, 5, **{"kernel_size": 3, "padding": 1, **settings, "bias": False})
        with torch.no_grad():
            alone.weight.copy_(weight[:, number : number + 1])
            added = alone(images[:, number : number + 1]).double()
        expected[:, number] = added.movedim(1, 0).flatten(1).var(1, correction=0).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_an_input_twice_as_large_has_four_times_the_second_order_scores_and_the_same_norms() -> None:
    before, after = network(), network()
    with torch.no_grad():
        for tensor in (after.bn.weight, after.bn.bias):
            tensor[3] *= 2.0
    factor = np.ones(8)
    factor[3] = 4.0
    for kind, factors in (("norm", np.ones(8)), ("second_order", factor)):
        one, other = (scores_of(kind, model)["m"] for model in (before, after))
        np.testing.assert_allclose(other, one * factors, rtol=1e-4)


@pytest.mark.parametrize("level", [2.0, 1000.0])
def test_an_input_that_never_varies_scores_nothing_by_second_order_alone(level: float) -> None:
    model = network(padding=0)
    with torch.no_grad():
        model.bn.weight[3] = 0.0
        model.bn.bias[3] = level
    norm, second = (scores_of(kind, model)["m"] for kind in KINDS)
    others = np.delete(np.arange(8), 3)
    assert (second >= 0.0).all()
    assert second[:, 3].max() < 1e-6 * second[:, others].min()
    assert norm[:, 3].min() > 0.1 * norm[:, others].min()


def test_at_a_padded_border_a_constant_input_does_vary() -> None:
    model = network()
    with torch.no_grad():
        model.bn.weight[3] = 0.0
        model.bn.bias[3] = 2.0
    assert scores_of("second_order", model)["m"][:, 3].min() > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_network_and_images_give_the_same_scores(kind: KernelCriterion) -> None:
    one, other = (scores_of(kind, network(), "m", "z") for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in ("m", "z"))


def test_the_batch_in_which_images_are_looked_at_does_not_matter() -> None:
    one, other = (scores_of("second_order", network(), batch=batch)["m"] for batch in (12, 1))
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_left_alone(kind: KernelCriterion) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores_of(kind, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_convolutions_of_other_sizes_are_scored_beside_each_other() -> None:
    model = body(lambda net, x: net.q(torch.relu(net.p(x))), 10, p=conv(8, 4, 1), q=conv(4, 10, 5))
    together = scores_of("second_order", model, "p", "q")
    assert {name: scores.shape for name, scores in together.items()} == {"p": (4, 8), "q": (10, 4)}
    for name in ("p", "q"):
        assert np.array_equal(together[name], scores_of("second_order", model, name)[name])
