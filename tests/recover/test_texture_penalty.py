"""The penalty `cdp`: its weights follow the similarity, gradients are finite, and training ends in plain weights."""

import math

import pytest
import torch
from penalised import context_of, trained_with
from torch import Tensor
from toy import image_set, toy_resnet

from prune_env.common.errors import ConfigError
from prune_env.granularity.stripe.skeleton import DynamicThreshold, skeletons_of
from prune_env.recover.penalties import TexturePenalty
from prune_env.recover.penalties.cdp import coefficients, filter_norm, texture_similarity


def random_strengths(seed: int, filters: int = 6) -> Tensor:
    return torch.randn(filters, 3, 3, generator=torch.Generator().manual_seed(seed))


def attached(**given: object) -> TexturePenalty:
    """The penalty on a `toy_resnet` whose skeletons differ."""
    context = context_of(**given)
    penalty = TexturePenalty(context)
    model = penalty.network(context.model)
    for number, skeleton in enumerate(skeletons_of(model).values()):
        skeleton.skeleton.data.copy_(1.0 + 0.3 * torch.randn(skeleton.skeleton.shape, generator=generator(number)))
    penalty.attach(model, None, lambda value: value)
    return penalty


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_similarity_is_the_sum_of_angles_to_the_mean() -> None:
    strengths = random_strengths(0)
    rows = strengths.flatten(1).double()
    mean = rows.mean(0)
    expected = 0.0
    for row in rows:
        cosine = float(row @ mean) / (math.sqrt(float(row @ row)) * math.sqrt(float(mean @ mean)) + 1e-7)
        expected += 1.0 - math.acos(cosine) / math.pi
    assert float(texture_similarity(strengths)) == pytest.approx(expected, rel=1e-5)
    assert float(texture_similarity(torch.ones(6, 3, 3))) == pytest.approx(6.0, abs=0.01)


def test_filters_weigh_more_when_textures_become_more_alike() -> None:
    before, now = torch.tensor(4.0), torch.tensor(5.0)
    filters, stripes = coefficients(now, before, 1.0)
    assert float(filters) > 1.0 > float(stripes)
    filters, stripes = coefficients(now, before, 1e-5)
    assert float(filters * stripes) == pytest.approx(1e-10)
    filters, stripes = coefficients(before, now, 1.0)
    assert float(filters) < 1.0 < float(stripes)


def test_the_first_step_weighs_both_alike() -> None:
    filters, stripes = coefficients(torch.tensor(5.0), torch.tensor(0.0), 1e-5)
    assert float(filters) == float(stripes) == pytest.approx(1e-5)


def test_paper_mode_compares_with_the_last_step() -> None:
    penalty = attached(mode="paper", strength=1.0)
    first = skeletons_of(penalty.model)
    expected = sum(float((filter_norm(one.strengths) + one.strengths.abs().sum()).detach()) for one in first.values())
    assert float(penalty.penalty().detach()) == pytest.approx(expected, rel=1e-5)
    before = {name: texture_similarity(one.strengths.detach()) for name, one in first.items()}
    expected = 0.0
    for name, one in first.items():
        one.skeleton.data.mul_(torch.rand(one.skeleton.shape, generator=generator(7)))
        ratio = float(texture_similarity(one.strengths.detach()) / before[name])
        assert ratio != pytest.approx(1.0)
        strengths = one.strengths.detach()
        expected += ratio * float(filter_norm(strengths)) + float(strengths.abs().sum()) / ratio
    assert float(penalty.penalty().detach()) == pytest.approx(expected, rel=1e-5)


def test_released_mode_is_twice_l1_in_every_step() -> None:
    """What the released code computes: norms of filters by way of squares, and a similarity that it forgets."""
    penalty = attached(mode="released", strength=0.01)
    for seed in range(3):
        skeletons = [one.strengths for one in skeletons_of(penalty.model).values()]
        filters = sum(one.abs().sum((1, 2)).square().sqrt().sum() for one in skeletons)
        stripes = sum(one.abs().sum() for one in skeletons)
        found = penalty.penalty()
        torch.testing.assert_close(found, 0.01 * filters + 0.01 * stripes)
        torch.testing.assert_close(found, 2.0 * 0.01 * stripes)
        for one in skeletons_of(penalty.model).values():
            one.skeleton.data.copy_(torch.randn(one.skeleton.shape, generator=generator(seed)))


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_gradients_are_finite_at_the_start_and_with_dead_filters(mode: str) -> None:
    context = context_of(mode=mode)
    penalty = TexturePenalty(context)
    model = penalty.network(context.model)
    penalty.attach(model, None, lambda value: value)
    for _ in range(2):
        (penalty.penalty() + model(image_set(4).images).square().mean()).backward()
        skeletons = skeletons_of(model)
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())
        assert float(skeletons["stem"].skeleton.grad.abs().min()) > 0.0
        mask = torch.ones_like(skeletons["stem"].mask)
        mask[1] = False
        skeletons["stem"].keep(mask)


def test_the_threshold_kills_before_each_step() -> None:
    penalty = attached(threshold=0.6)
    penalty.progress(0.1)
    for one in skeletons_of(penalty.model).values():
        assert torch.equal(one.mask, DynamicThreshold(0.6, relative=True).staying(one.skeleton))
        assert 0.02 < float((~one.mask).float().mean()) < 0.98
    free = attached(threshold=0.0)
    free.progress(0.1)
    assert all(bool(one.mask.all()) for one in skeletons_of(free.model).values())


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_training_ends_in_a_plain_network_with_the_same_outputs(average: float) -> None:
    penalty, trainer = trained_with("cdp", mode="released", strength=0.1, threshold=0.8, average=average, epochs=3)
    images = image_set(5).images
    trained = trainer.result.eval()
    shares = penalty.record(trained)["shares"]
    assert set(shares) == {"stem", "down", "up", "project", "out"}
    assert max(shares.values()) > 0.1
    expected = trained(images)
    folded = penalty.finish(trained)
    assert torch.equal(folded(images), expected)
    zeros = {name: float((folded.get_submodule(name).weight.abs().sum(1) == 0).float().mean()) for name in shares}
    assert zeros == pytest.approx(shares)


def test_layers_that_a_threshold_would_empty_keep_one_stripe_and_are_told() -> None:
    penalty = attached(threshold=1e3)
    assert penalty.record(penalty.model)["warnings"] == []
    penalty.progress(0.1)
    skeletons = skeletons_of(penalty.model)
    assert {int(one.mask.sum()) for one in skeletons.values()} == {1}
    (warning,) = penalty.record(penalty.model)["warnings"]
    assert all(name in warning for name in skeletons)


def test_protected_convolutions_get_no_skeleton() -> None:
    context = context_of(untouched=frozenset({"stem"}))
    assert "stem" not in skeletons_of(TexturePenalty(context).network(context.model))


def test_a_network_without_stripes_is_refused() -> None:
    names = frozenset({"stem", "down", "up", "out"})
    context = context_of(untouched=names)
    with pytest.raises(ConfigError, match=r"'cdp' shrinks the stripes of plain convolutions .* 'group_lasso'"):
        TexturePenalty(context).network(toy_resnet())
