"""Taylor: the first-order estimate of the squared change of an image's loss without a channel."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import ImageSet, image_set, planted_images, planted_net, toy_walk
from zoo import Net, body, chain, conv, small_images

from prune_env import LayerWalk
from prune_env.common.errors import ModelError
from prune_env.criteria import ScoringContext, score_channels

SMALL = ImageSet(small_images(5, seed=3), torch.tensor([0, 1, 2, 3, 0]))


def by_gates(model: nn.Module, places: Iterable[str], data: ImageSet) -> dict[str, np.ndarray]:
    """The paper's definition, image by image: each channel of a place is multiplied by a gate of 1.

    Returns:
        The mean of the gates' squared gradients by place, [channels].
    """
    gates: dict[str, Tensor] = {}

    def gated(place: str, output: Tensor) -> Tensor:
        gates[place] = torch.ones(output.shape[1], dtype=output.dtype, requires_grad=True)
        return output * gates[place].reshape(-1, *[1] * (output.ndim - 2))

    handles = [
        model.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, output, place=place: gated(place, output)
        )
        for place in places
    ]
    totals = dict.fromkeys(places, 0.0)
    model.eval()
    for image, label in zip(data.images.split(1), data.targets.split(1), strict=True):
        F.cross_entropy(model(image), label).backward()
        totals = {place: total + gates[place].grad.double().numpy() ** 2 for place, total in totals.items()}
    for handle in handles:
        handle.remove()
    return {place: total / len(data) for place, total in totals.items()}


def taylor(walk: LayerWalk, data: ImageSet, batch_size: int = 64) -> dict[str, np.ndarray]:
    return dict(score_channels("taylor", ScoringContext(walk, data, batch_size=batch_size)))


def test_plain_and_coupled_units_are_scored_as_by_the_papers_gates_image_by_image() -> None:
    walk, data = toy_walk(), image_set(6)
    scores = taylor(walk, data)
    expected = by_gates(walk.model, ["stem_bn", "down_bn", "up_bn", "project", "mid", "out", "fc"], data)
    assert scores["stem"] == pytest.approx(expected["stem_bn"], rel=1e-3)
    assert scores["down"] == pytest.approx(expected["down_bn"], rel=1e-3)
    assert scores["mid"] == pytest.approx(expected["mid"], rel=1e-3)
    assert scores["fc"] == pytest.approx(expected["fc"], rel=1e-3)
    assert scores["up"] == pytest.approx(expected["up_bn"] + expected["project"] + expected["out"], rel=1e-3)


def test_slots_are_scored_by_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4))
    scores = taylor(LayerWalk.trace(net, small_images()), SMALL)
    expected = by_gates(net, ["bn", "g"], SMALL)
    assert scores["a"] == pytest.approx(expected["bn"].reshape(4, 2).sum(axis=0), rel=1e-3)
    assert scores["g"] == pytest.approx(expected["g"].reshape(4, 3).sum(axis=0), rel=1e-3)


def test_a_depthwise_layer_counts_with_what_feeds_it() -> None:
    net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1))
    expected = by_gates(net, ["bn", "d"], SMALL)
    scores = taylor(LayerWalk.trace(net, small_images()), SMALL)
    assert scores["a"] == pytest.approx(expected["bn"] + expected["d"], rel=1e-3)


def test_the_batch_size_does_not_matter() -> None:
    walk, data = toy_walk(), image_set(7)
    whole, parts = taylor(walk, data), taylor(walk, data, batch_size=3)
    for name, scores in whole.items():
        assert parts[name] == pytest.approx(scores, rel=1e-4)


def test_a_layer_called_twice_is_gone_from_both_calls() -> None:
    net = body(lambda net, x: net.s(torch.relu(net.s(x))), s=conv(8, 8, 1))
    data = ImageSet(SMALL.images[:1], SMALL.targets[:1])
    outputs: list[Tensor] = []
    net.eval().s.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    walk = LayerWalk.trace(net, small_images())
    outputs.clear()
    loss = F.cross_entropy(net(data.images), data.targets)
    first, second = (
        (output * gradient).sum((0, 2, 3)).detach().double().numpy()
        for output, gradient in zip(outputs, torch.autograd.grad(loss, outputs), strict=True)
    )
    unit = next(unit for unit in walk.units if any(member.module == "s" for member in unit.members))
    others = by_gates(net, ["bn"], data)["bn"] if unit.name == "a" else 0.0
    assert taylor(walk, data)[unit.name] == pytest.approx((first + second) ** 2 + others, rel=1e-3)


def test_channels_that_nothing_listens_to_get_exactly_zero_however_large_they_are() -> None:
    net = body(lambda _, x: x)
    with torch.no_grad():
        net.z.weight[:, [1, 4]] = 0.0
        net.a.weight[[1, 4]] *= 100
    walk = LayerWalk.trace(net, small_images())
    scores = taylor(walk, SMALL)["a"]
    assert scores[[1, 4]].tolist() == [0.0, 0.0]
    assert (np.delete(scores, [1, 4]) > 0).all()
    # The magnitudes of the weights give the opposite order.
    assert set(np.argsort(score_channels("l1", ScoringContext(walk))["a"])[-2:]) == {1, 4}


def test_a_unit_without_effect_gets_zeros_and_the_one_that_decides_does_not() -> None:
    data = planted_images(12)
    scores = taylor(LayerWalk.trace(planted_net(), data.images), data)
    assert (scores["useless"] == 0).all()
    assert (scores["essential"] > 0).all()


def test_an_activation_in_place_changes_nothing() -> None:
    def net(inplace: bool) -> Net:
        torch.manual_seed(1)
        return body(lambda net, x: net.act(net.m(x)), m=conv(8, 8), act=nn.Hardswish(inplace=inplace))

    plain, inplace = (taylor(LayerWalk.trace(net(flag), small_images()), SMALL) for flag in (False, True))
    for name, scores in plain.items():
        assert inplace[name].tolist() == scores.tolist()


def test_linear_layers_that_keep_the_channels_last_are_summed_over_positions() -> None:
    net = body(lambda net, x: net.m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 10, m=nn.Linear(8, 10))
    walk = LayerWalk.trace(net, small_images())
    outputs: list[Tensor] = []
    net.eval().m.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    loss = F.cross_entropy(net(SMALL.images[:1]), SMALL.targets[:1])
    (gradient,) = torch.autograd.grad(loss, outputs)
    expected = (outputs[0] * gradient).sum((0, 1, 2)).detach().double().numpy() ** 2
    assert taylor(walk, ImageSet(SMALL.images[:1], SMALL.targets[:1]))["m"] == pytest.approx(expected, rel=1e-3)


def test_nothing_is_left_behind() -> None:
    context = ScoringContext(toy_walk(), image_set(4))
    first = score_channels("taylor", context)
    assert all(parameter.grad is None for parameter in context.folded.parameters())
    assert score_channels("taylor", context)["up"].tolist() == first["up"].tolist()


def test_a_network_without_one_output_for_each_class_is_refused() -> None:
    data = ImageSet(SMALL.images, torch.full((5,), 7))
    with pytest.raises(ModelError, match="of shape \\[5, 5\\]"):
        taylor(LayerWalk.trace(chain(), small_images()), data)
