"""Merging is exact where the dropped channels are copies of kept ones, whatever reads them."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import toy_resnet
from zoo import body, build, chain, conv, example, outputs, relative_difference, small_images, unit_of

from prune_env import LayerWalk, PruningPlan
from prune_env.criteria import ScoringContext
from prune_env.criteria.clusters import score_widths
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.plan import apply_plan
from prune_env.repair.merging import Merging, merged_inputs, similar_filters

EXACT = 1e-5


def merged_by(walk: LayerWalk, plan: PruningPlan, stand_ins: Mapping[str, np.ndarray]) -> nn.Module:
    """The network cut to a plan and merged; units that are not named are only cut."""
    own = {unit.name: np.arange(unit.channels) for unit in walk.units}
    return apply_plan(plan, walk.model, Merging(walk, lambda name, _: stand_ins.get(name, own[name])))


def with_copies(model: nn.Module, images: Tensor, copies: Mapping[str, Mapping[int, int]]) -> LayerWalk:
    """The walk of a network in which channels (copy -> original, by unit) are equal in all that writes them."""
    walk = LayerWalk.trace(model, images)
    with torch.no_grad():
        for name, pairs in copies.items():
            for member in unit_of(walk, name).members:
                module = model.get_submodule(member.module)
                if member.side == "out":
                    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                        if tensor.ndim and tensor.is_floating_point():
                            tensor[member.index[list(pairs)]] = tensor[member.index[list(pairs.values())]]
    return walk


def differences(walk: LayerWalk, images: Tensor, copies: Mapping[str, Mapping[int, int]], **also: int) -> list[float]:
    """How far the outputs are from the dense ones if the copies are cut and merged, and if they are only cut.

    ``also``: Units that are cut to a width besides.
    """
    scores = {unit.name: np.ones(unit.channels) for unit in walk.units}
    stand_ins = {}
    for name, pairs in copies.items():
        scores[name][list(pairs)] = 0
        stand_ins[name] = np.arange(len(scores[name]))
        stand_ins[name][list(pairs)] = list(pairs.values())
    widths = {name: len(scores[name]) - len(pairs) for name, pairs in copies.items()}
    besides = walk.plan(also, scores).apply(walk.model)
    plan = walk.plan({**widths, **also}, scores)
    expected = outputs(besides, images)
    return [
        relative_difference(outputs(small, images), expected)
        for small in (merged_by(walk, plan, stand_ins), plan.apply(walk.model))
    ]


def grouped() -> nn.Module:
    return body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=2))


def depthwise() -> nn.Module:
    return body(lambda net, x: net.p(torch.relu(net.d(x))), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1))


TOY = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
CASES = {
    "convolution and batch norm": (chain, small_images(2), {"0": {5: 1, 6: 1, 0: 7}}),
    "flatten": (chain, small_images(2), {"3": {4: 0}}),
    "two in a row": (chain, small_images(2), {"0": {5: 1}, "3": {4: 0, 5: 0}}),
    "residual": (toy_resnet, TOY, {"up": {3: 2, 9: 0}, "mid": {1: 0}}),
    "grouped": (grouped, small_images(2), {"a": {1: 2}}),
    "depthwise": (depthwise, small_images(2), {"a": {4: 1, 5: 1}}),
    # Within the stage, and through the shortcut into the next.
    "zero-padding shortcut": (lambda: build("cifar_resnet20"), example("cifar_resnet20", 2), {"conv1": {3: 2, 9: 0}}),
}


@pytest.mark.parametrize("case", CASES)
def test_copies_are_merged_without_a_trace(case: str) -> None:
    make, images, copies = CASES[case]
    walk = with_copies(make(), images, copies)
    merged, cut = differences(walk, images, copies)
    assert merged < EXACT
    assert cut > 100 * EXACT


def test_a_reader_whose_outputs_are_cut_too_is_merged() -> None:
    copies = {"0": {5: 1, 6: 1}}
    walk = with_copies(chain(), small_images(2), copies)
    merged, cut = differences(walk, small_images(2), copies, **{"3": 2})
    assert merged < EXACT
    assert cut > 100 * EXACT


def test_copies_without_their_batch_norm_are_not_the_same() -> None:
    copies = {"0": {5: 1}}
    walk = with_copies(chain(), small_images(2), copies)
    with torch.no_grad():
        walk.model[1].bias[5] += 0.5
    assert differences(walk, small_images(2), copies)[0] > 100 * EXACT


def test_eight_clusters_of_copies_stand_for_all_sixty_four_filters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        conv(3, 64, bias=False), nn.BatchNorm2d(64), nn.ReLU(), conv(64, 6), nn.ReLU(), nn.Flatten(), nn.Linear(384, 5)
    )
    walk = with_copies(model, small_images(2), {"0": {channel: channel % 8 for channel in range(8, 64)}})
    context = ScoringContext(walk)
    plan = walk.plan({"0": 8}, score_widths(context, {"0": 8}))
    small = apply_plan(plan, model, Merging(walk, similar_filters(context)))
    assert small[0].out_channels == small[3].in_channels == 8
    assert relative_difference(outputs(small, small_images(2)), outputs(model, small_images(2))) < EXACT


def test_a_skeleton_merges_for_plan_after_plan() -> None:
    model = toy_resnet()
    walk = LayerWalk.trace(model, TOY)
    with torch.no_grad():  # filters alike enough to be merged
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(0.3).add_(layer.weight[:1].clone())
    repair = Merging(walk, similar_filters(ScoringContext(walk)))
    skeleton = ReshapableNetwork(model, walk.units, repair=repair)
    for seed in range(3):
        plan = walk.plan({unit.name: unit.channels - 1 - seed for unit in walk.free})
        expected = outputs(apply_plan(plan, model, repair), TOY)
        assert relative_difference(outputs(skeleton.cut(plan.kept), TOY), expected) < EXACT
        assert relative_difference(outputs(plan.apply(model), TOY), expected) > 100 * EXACT
    assert torch.equal(skeleton.cut({})(TOY), model(TOY))


def test_the_dense_network_is_left_as_it_is() -> None:
    walk = with_copies(chain(), small_images(), {})
    before = {name: tensor.clone() for name, tensor in walk.model.state_dict().items()}
    differences(walk, small_images(), {"0": {5: 1}, "3": {1: 0}})
    assert all(torch.equal(tensor, before[name]) for name, tensor in walk.model.state_dict().items())


def test_inputs_are_added_up() -> None:
    weight = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
    merged = merged_inputs(weight, np.array([2, 1, 2]))
    assert merged.tolist() == [[0, 10, 101], [0, 20, 202]]
    assert weight[0, 0] == 1


def test_inputs_of_two_groups_are_not_added_up() -> None:
    weight = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    assert merged_inputs(weight, np.array([1, 1, 1, 3]), groups=2).tolist() == [[0, 11], [2, 20]]


def pair_of_layers(weights: list[list[float]], biases: list[float]) -> nn.Sequential:
    """1x1 convolutions; the first has these filters."""
    model = nn.Sequential(conv(2, len(biases), 1), nn.ReLU(), conv(len(biases), 3, 1))
    with torch.no_grad():
        model[0].weight[:] = torch.tensor(weights)[..., None, None]
        model[0].bias[:] = torch.tensor(biases)
    return model


def stand_ins_of(model: nn.Sequential, kept: list[int]) -> list[int]:
    context = ScoringContext(LayerWalk.trace(model, torch.randn(1, 2, 4, 4)))
    return similar_filters(context)("0", np.array(kept)).tolist()


def test_the_kept_channel_of_the_nearest_filter_stands_for_a_dropped_one_and_each_kept_one_for_itself() -> None:
    model = pair_of_layers([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]], [0.0] * 4)
    assert stand_ins_of(model, [0, 2]) == [0, 0, 2, 2]
    assert stand_ins_of(model, [1, 3]) == [1, 1, 3, 3]


def test_filters_that_differ_in_their_bias_alone_are_not_the_same() -> None:
    model = pair_of_layers([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1]], [2.0, 0.0, 0.0])
    assert stand_ins_of(model, [0, 2]) == [0, 2, 2]


def test_nothing_stands_for_a_channel_that_is_nearer_to_zero_than_to_any_that_stays() -> None:
    model = pair_of_layers([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.9, 0.0]], [0.0] * 4)
    assert stand_ins_of(model, [0]) == [0, 1, 2, 0]


def test_a_dead_channel_is_cut_as_it_would_be_without_merging() -> None:
    model = pair_of_layers([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5]], [0.1, 0.0, 0.0])
    walk = LayerWalk.trace(model, torch.randn(1, 2, 4, 4))
    plan = walk.plan({"0": 2}, {"0": np.array([1.0, 0.0, 1.0])})
    images = [torch.randn(2, 2, 4, 4)]
    small = apply_plan(plan, model, Merging(walk, similar_filters(ScoringContext(walk))))
    assert relative_difference(outputs(small, images[0]), outputs(model, images[0])) < EXACT


def test_copies_that_a_batch_norm_tells_apart_do_not_stand_for_each_other() -> None:
    class TwoReaders(nn.Module):
        """Both batch norms read the convolution, so that neither can be folded into it."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.m, self.z = conv(3, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4), conv(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            found = self.a(images)
            return self.z(self.n(found).relu() + self.m(found).relu())

    model = TwoReaders().eval()
    with torch.no_grad():
        model.a.weight[1:] = model.a.weight[:1]
        model.a.bias[1:] = model.a.bias[:1]
        model.n.weight[:] = torch.tensor([1.0, 1.0, 5.0, 5.1])
    walk = LayerWalk.trace(model, small_images())
    stand_ins = similar_filters(ScoringContext(walk))("a", np.array([0, 3]))
    assert stand_ins.tolist() == [0, 0, 3, 3]
