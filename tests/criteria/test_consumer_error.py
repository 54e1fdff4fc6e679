"""Consumer error: the channels whose loss changes the reading layers least go first."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_walk
from zoo import body, conv

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, consumer_error, score_channels
from prune_env.criteria.consumer_error import joint_errors, lone_errors, removal_order
from prune_env.criteria.patch_covariance import patch_moments, patch_spreads, patches


def data(count: int = 32):
    return image_set(count, colours=3)


def scores_of(model: nn.Module, count: int = 32) -> dict[str, np.ndarray]:
    images = data(count)
    return dict(score_channels("consumer_error", ScoringContext(LayerWalk.trace(model, images.images[:1]), images)))


def chain(*, channels: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        conv(3, channels), nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, 5), nn.ReLU(), conv(5, 4)
    ).eval()


def read_by(model: nn.Sequential, place: int, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model[:place](images)


def test_joint_errors_are_the_centred_squared_changes_relative_to_each_outputs_variance() -> None:
    model, images = chain(), data().images
    layer = model[3]
    moments = patch_moments(model, ["3"], [(images, torch.zeros(len(images)))])["3"]
    errors = joint_errors(layer, moments, normed=True)
    rows = patches(layer, read_by(model, 3, images)).squeeze(1).transpose(1, 2).flatten(0, 1).double()
    weight = layer.weight.detach().flatten(1).double()
    spread = (rows @ weight.T).var(dim=0, correction=0)
    for removed in ([0], [1, 4], [0, 2, 3, 5]):
        places = np.concatenate([np.arange(9) + 9 * channel for channel in removed])
        change = (rows[:, places] @ weight[:, places].T).var(dim=0, correction=0)
        assert errors[np.ix_(removed, removed)].sum() == pytest.approx(float((change / spread).sum()), rel=1e-4)


def test_a_channel_that_nobody_uses_goes_first() -> None:
    model = chain()
    with torch.no_grad():
        model[3].weight[:, 4] = 0.0
    assert scores_of(model)["0"][4] == 0


@pytest.mark.parametrize("normed", [True, False])
def test_a_channel_that_never_varies_goes_first_only_where_a_batch_norm_takes_its_constant_out(normed: bool) -> None:
    model = chain()
    model[3] = conv(6, 5, 1)  # under a padded border even a constant varies
    model[4] = nn.Sequential(nn.BatchNorm2d(5) if normed else nn.Identity(), nn.ReLU()).eval()
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0.0, 50.0
    assert scores_of(model)["0"][2] == (0 if normed else 5)


def test_channels_that_cancel_each_other_go_one_after_the_other() -> None:
    errors = np.diag([3.0, 3.0, 1.0, 4.0])
    errors[0, 1] = errors[1, 0] = -3.0
    assert removal_order(errors).tolist() == [1, 2, 0, 3]


def test_channels_that_do_the_same_do_not_go_together() -> None:
    errors = np.diag([1.0, 1.0, 1.5, 9.0])
    errors[0, 1] = errors[1, 0] = 1.0
    assert removal_order(errors).tolist() == [0, 2, 1, 3]


def test_scaling_a_consumer_changes_nothing() -> None:
    model = chain()
    before = scores_of(model)["0"]
    with torch.no_grad():
        model[3].weight[1] *= 50.0
        model[3].bias[1] *= 50.0
        # The following layers read the same values, so only the scale of the one consumer differs.
        model[5].weight[:, 1] /= 50.0
    assert scores_of(model)["0"].tolist() == before.tolist()


def test_every_place_is_given_once() -> None:
    for name, values in scores_of(chain()).items():
        if name != "5":
            assert sorted(values.tolist()) == list(range(len(values)))


def test_a_unit_that_no_layer_reads_has_zeros() -> None:
    assert not scores_of(chain())["5"].any()


def test_a_coupled_unit_adds_what_all_its_consumers_miss() -> None:
    walk = toy_walk()
    images = image_set(32)
    context = ScoringContext(walk, images)
    readers = {"mid": context.folded.mid, "fc": context.folded.fc}
    moments = patch_moments(context.folded, readers, context.batches(16))
    total = sum(joint_errors(layer, moments[name], normed=False) for name, layer in readers.items())
    assert score_channels("consumer_error", context)["up"].tolist() == removal_order(total).tolist()


def test_channels_behind_a_flatten_count_with_all_their_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 6), nn.Flatten(), nn.Linear(6 * 64, 5)).eval()
    with torch.no_grad():
        model[2].weight[:, 3 * 64 : 4 * 64] = 0.0
    assert scores_of(model)["0"][3] == 0


def test_slots_of_grouped_consumers_count_over_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4)).eval()
    with torch.no_grad():
        net.g.weight[:, 1] = 0.0
    images = data()
    found = score_channels("consumer_error", ScoringContext(LayerWalk.trace(net, images.images[:1]), images))
    assert found["a"].tolist() == [1, 0]


def test_behind_a_depthwise_layer_its_reader_counts() -> None:
    net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1)).eval()
    with torch.no_grad():
        net.p.weight[:, 5] = 0.0
    images = data()
    found = score_channels("consumer_error", ScoringContext(LayerWalk.trace(net, images.images[:1]), images))
    assert found["a"][5] == 0


@pytest.mark.parametrize("normed", [True, False])
def test_errors_of_a_layer_that_is_too_large_are_those_of_inputs_that_have_nothing_to_do_with_each_other(
    normed: bool,
) -> None:
    layer, images = conv(4, 5, 1), torch.randn(64, 4, 1, 1)
    model, batches = nn.Sequential(layer).eval(), [(images, torch.zeros(64))]
    apart = patch_moments(model, ["0"], batches)["0"]
    apart.products = torch.diag_embed(apart.products.diagonal(dim1=1, dim2=2))
    apart.total.zero_()
    apart.shift.zero_()
    wanted = joint_errors(layer, apart, normed).diagonal()
    mean, variance = patch_spreads(model, ["0"], batches)["0"]
    second = variance + mean.square()
    assert mean.tolist()[0] == pytest.approx(images.mean(0).flatten().tolist(), rel=1e-4)
    assert variance.tolist()[0] == pytest.approx(images.var(0, correction=0).flatten().tolist(), rel=1e-4)
    found = lone_errors(layer, torch.zeros(1, 4), apart.products.diagonal(dim1=1, dim2=2) / apart.count, normed)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    assert lone_errors(layer, mean, variance, False).sum() == pytest.approx(
        float(
            (
                layer.weight.detach().flatten(1).square().double()
                @ second[0]
                / (layer.weight.detach().flatten(1).square().double() @ variance[0])
            ).sum()
        ),
        rel=1e-6,
    )


def test_a_layer_that_is_too_large_is_looked_at_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_error, "too_large", lambda weight: weight[0].numel() > 60)
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 10)).eval()
    with torch.no_grad():
        model[3].weight.view(10, 6, 64)[:, 4] *= 1e-3
        model[3].weight.view(10, 6, 64)[:, 2] *= 1e3
    places = scores_of(model)["0"]
    assert sorted(places) == list(range(6))
    assert (places[4], places[2]) == (0, 5)
