"""Activation mean: the mean magnitude of the values that the next layers read from a channel."""

import pytest
import torch
from toy import ImageSet, image_set, toy_walk
from zoo import body, chain, conv, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, score_channels

DATA = ImageSet(small_images(5, seed=3), torch.tensor([0, 1, 2, 3, 0]))


def by_channel(maps: torch.Tensor) -> torch.Tensor:
    """Mean |x|, [channels]."""
    return maps.detach().double().abs().transpose(0, 1).flatten(1).mean(1)


def test_the_score_of_a_plain_unit_is_the_mean_that_the_next_layer_reads() -> None:
    model = chain().eval()
    scores = score_channels("activation_mean", ScoringContext(LayerWalk.trace(model, small_images()), DATA))
    assert scores["0"] == pytest.approx(by_channel(model[:3](DATA.images)).numpy(), rel=1e-4)
    # The linear layer reads 16 pixels of each channel.
    assert scores["3"] == pytest.approx(by_channel(model[:6](DATA.images)).numpy(), rel=1e-4)
    # Nothing reads the output.
    assert scores["7"].tolist() == [0.0] * 5


def test_the_score_of_a_coupled_unit_is_the_mean_over_all_its_readers() -> None:
    walk, data = toy_walk(), image_set(6)
    read: dict[str, torch.Tensor] = {}
    handles = [
        getattr(walk.model, name).register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
        for name in ("mid", "fc", "project", "down")
    ]
    walk.model(data.images)
    for handle in handles:
        handle.remove()
    scores = score_channels("activation_mean", ScoringContext(walk, data))
    assert scores["up"] == pytest.approx((by_channel(read["mid"]) + by_channel(read["fc"])).numpy() / 2, rel=1e-4)
    assert scores["stem"] == pytest.approx(by_channel(read["project"]).numpy(), rel=1e-4)


def test_the_score_of_a_slot_is_the_mean_over_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4)).eval()
    scores = score_channels("activation_mean", ScoringContext(LayerWalk.trace(net, small_images()), DATA))
    inner = torch.relu(net.bn(net.a(DATA.images)))
    assert scores["a"] == pytest.approx(by_channel(inner).reshape(4, 2).mean(0).numpy(), rel=1e-4)
    assert scores["g"] == pytest.approx(by_channel(net.g(inner)).reshape(4, 3).mean(0).numpy(), rel=1e-4)


def test_a_depthwise_layer_counts_with_its_input_and_its_output() -> None:
    net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1)).eval()
    scores = score_channels("activation_mean", ScoringContext(LayerWalk.trace(net, small_images()), DATA))
    inner = torch.relu(net.bn(net.a(DATA.images)))
    assert scores["a"] == pytest.approx((by_channel(inner) + by_channel(net.d(inner))).numpy() / 2, rel=1e-4)


def test_a_dead_channel_comes_last_however_large_its_weights_are() -> None:
    model = chain()
    with torch.no_grad():
        model[0].weight[2] *= 10
        model[1].bias[2] = -1000.0
    context = ScoringContext(LayerWalk.trace(model, small_images()), DATA)
    scores = score_channels("activation_mean", context)["0"]
    assert scores[2] == 0.0
    assert (scores > 0).sum() == 7
    assert score_channels("l1", context)["0"].argmax() == 2


def test_uneven_batches_count_by_their_images() -> None:
    walk = LayerWalk.trace(chain(), small_images())
    whole, parts = (score_channels("activation_mean", ScoringContext(walk, DATA, batch_size=size)) for size in (5, 2))
    for name, scores in whole.items():
        assert parts[name] == pytest.approx(scores, rel=1e-5)
