"""Skeletons: strengths multiply weights, thresholds follow DTC's formula, and dead stripes stay dead."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import ToyResNet, image_set, toy_resnet

from prune_env.common.copying import copied
from prune_env.granularity.stripe.skeleton import (
    DynamicThreshold,
    Skeleton,
    add_skeletons,
    fold_skeletons,
    skeletons_of,
)


def skeleton_of(strengths: Tensor) -> Skeleton:
    filters, *kernel = strengths.shape
    skeleton = Skeleton(torch.zeros(filters, 2, *kernel))
    skeleton.skeleton.data.copy_(strengths)
    return skeleton


def random_strengths(seed: int, filters: int = 6) -> Tensor:
    return torch.randn(filters, 3, 3, generator=torch.Generator().manual_seed(seed))


def with_skeletons(model: nn.Module | None = None) -> nn.Module:
    model = model or toy_resnet()
    add_skeletons(model, image_set(1).images)
    return model


class TestDynamicThreshold:
    def test_a_filter_s_threshold_is_the_mean_strength_over_its_own(self) -> None:
        strengths = random_strengths(0)
        sums = [float(sum(abs(float(value)) for value in one.flatten())) for one in strengths]
        expected = [0.05 * (sum(sums) / 6) / own for own in sums]
        torch.testing.assert_close(DynamicThreshold(0.05).of(strengths), torch.tensor(expected))

    def test_equal_filters_have_the_constant_as_their_threshold(self) -> None:
        assert DynamicThreshold(0.05).of(torch.ones(4, 3, 3)).tolist() == pytest.approx([0.05] * 4)

    def test_a_stripe_stays_if_it_is_above_its_filter_s_threshold(self) -> None:
        strengths = torch.tensor([[[2.0, 0.1]], [[0.9, 0.1]], [[0.3, 0.3]]])
        # sums 2.1, 1.0, 0.6; mean 1.2333; thresholds of 0.15: 0.088, 0.185, 0.308
        skeleton = skeleton_of(strengths)
        DynamicThreshold(0.15).cut(skeleton)
        assert skeleton.mask.tolist() == [[[True, True]], [[True, False]], [[False, False]]]
        assert skeleton.alive.tolist() == [True, True, False]

    def test_a_dead_filter_has_an_infinite_threshold_and_stays_dead(self) -> None:
        skeleton = skeleton_of(random_strengths(1))
        staying = torch.ones(6, 3, 3, dtype=torch.bool)
        staying[2] = False
        skeleton.keep(staying)
        thresholds = DynamicThreshold(1e-3).of(skeleton.strengths)
        assert thresholds[2] == torch.inf
        assert bool(thresholds[[0, 1, 3, 4, 5]].isfinite().all())
        skeleton.skeleton.data.fill_(100.0)
        DynamicThreshold(1e-3).cut(skeleton)
        assert skeleton.alive.tolist() == [True, True, False, True, True, True]

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0.0, 3.0)), min_size=1, max_size=6))
    def test_no_step_revives_a_stripe_or_empties_a_layer(self, steps: list[tuple[int, float]]) -> None:
        skeleton = skeleton_of(torch.ones(6, 3, 3))
        for seed, threshold in steps:
            before = skeleton.mask.clone()
            skeleton.skeleton.data.copy_(random_strengths(seed))
            DynamicThreshold(threshold).cut(skeleton)
            assert not bool((skeleton.mask & ~before).any())
            assert bool(skeleton.mask.any())

    def test_relative_strengths_survive_what_a_batch_norm_undoes(self) -> None:
        strengths = random_strengths(3).abs()
        fixed, relative = DynamicThreshold(0.05), DynamicThreshold(0.05, relative=True)
        assert torch.equal(relative.staying(strengths), relative.staying(1e-3 * strengths))
        assert fixed.staying(strengths).sum() > 1
        assert fixed.staying(1e-3 * strengths).sum() == 1

    def test_the_strongest_stripe_of_a_layer_stays(self) -> None:
        strengths = random_strengths(3)
        skeleton = skeleton_of(strengths)
        DynamicThreshold(1000.0).cut(skeleton)
        assert skeleton.mask.flatten().nonzero().flatten().tolist() == [int(strengths.abs().argmax())]
        skeleton.skeleton.data.zero_()
        DynamicThreshold(1000.0).cut(skeleton)
        assert int(skeleton.mask.sum()) == 1


def test_strengths_start_at_the_stripes_norms() -> None:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2, :, 1, 1] = 0.0
    skeleton = Skeleton(weight)
    norms = weight.norm(dim=1)
    torch.testing.assert_close(skeleton.strengths.detach(), norms / norms.mean())
    torch.testing.assert_close(skeleton(skeleton.right_inverse(weight)), weight)


class TestAddSkeletons:
    def test_plain_convolutions_larger_than_1x1_get_one(self) -> None:
        model = toy_resnet()
        assert list(add_skeletons(model, image_set(1).images)) == ["stem", "down", "up", "out"]
        assert list(skeletons_of(model)) == ["stem", "down", "up", "out"]

    def test_grouped_shared_frozen_and_named_convolutions_get_none(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        )
        model[2].weight = model[1].weight
        model[3].requires_grad_(requires_grad=False)
        images = torch.zeros(1, 2, 12, 12)
        assert list(add_skeletons(model, images, untouched={"4"})) == []
        assert list(add_skeletons(model, images)) == ["4"]

    def test_outputs_do_not_change(self) -> None:
        images = image_set(5).images
        torch.testing.assert_close(with_skeletons()(images), toy_resnet()(images))

    def test_a_filter_without_stripes_puts_out_nothing_behind_its_norm(self) -> None:
        model = with_skeletons()
        assert isinstance(model, ToyResNet)
        staying = torch.ones_like(skeletons_of(model)["stem"].mask)
        staying[3] = False
        skeletons_of(model)["stem"].keep(staying)
        images = image_set(5).images
        maps = model.stem_bn(model.stem(images))
        assert not bool(maps[:, 3].any())
        assert bool(maps[:, 2].any())

    def test_a_dead_filter_without_a_norm_loses_its_bias(self) -> None:
        model = with_skeletons()
        assert isinstance(model, ToyResNet)
        staying = torch.ones_like(skeletons_of(model)["out"].mask)
        staying[0] = False
        skeletons_of(model)["out"].keep(staying)
        maps = model.out(torch.randn(2, 24, 4, 4))
        assert not bool(maps[:, 0].any())
        assert bool(maps[:, 1].any())

    def test_masks_and_strengths_survive_saving_and_copying(self) -> None:
        model = with_skeletons()
        for skeleton in skeletons_of(model).values():
            skeleton.skeleton.data.mul_(torch.rand_like(skeleton.skeleton))
            DynamicThreshold(0.8).cut(skeleton)
        images = image_set(5).images
        expected = model(images)
        other = with_skeletons()
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(images), expected)
        copy = copied(model)
        assert torch.equal(copy(images), expected)
        kept = torch.zeros_like(skeletons_of(copy)["stem"].mask)
        kept[0] = True
        skeletons_of(copy)["stem"].keep(kept)
        assert not torch.equal(copy(images), expected)
        assert torch.equal(model(images), expected)


class TestFoldSkeletons:
    def test_outputs_do_not_change_and_modules_are_plain_again(self) -> None:
        model = with_skeletons()
        for number, skeleton in enumerate(skeletons_of(model).values()):
            skeleton.skeleton.data.copy_(torch.rand_like(skeleton.skeleton))
            DynamicThreshold(0.9).cut(skeleton)
            assert 0.1 < float(skeleton.mask.float().mean()) < 0.9, number
        images = image_set(5).images
        expected = model(images)
        folded = fold_skeletons(model)
        assert torch.equal(folded(images), expected)
        assert folded.state_dict().keys() == toy_resnet().state_dict().keys()
        assert [type(module) for module in folded.modules()] == [type(module) for module in toy_resnet().modules()]
        assert all(isinstance(parameter, nn.Parameter) for parameter in folded.parameters())

    def test_a_network_without_skeletons_stays_as_it_is(self) -> None:
        model = toy_resnet()
        assert fold_skeletons(model).state_dict().keys() == toy_resnet().state_dict().keys()
