"""Sensitive layers: ranks of feature maps, and the protection of layers with many low-rank maps."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import digits_config, digits_splits, image_set, spearman, toy_problem, toy_resnet, toy_walk, trained_digits
from zoo import Net, conv, imprint, randomise

from prune_env import LayerWalk, PruningEnv
from prune_env.common.errors import BudgetError, EvaluationError
from prune_env.common.records import checked, to_file
from prune_env.data import ImageSet, load_source
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_splits
from prune_env.protection.feature_ranks import LayerRanks, feature_map_ranks
from prune_env.protection.sensitivity import LayerEvidence, SensitivityReport, find_sensitive_layers

CHANNELS = 8


def striped(count: int, seed: int = 0, side: int = 8) -> ImageSet:
    """Images of two colours: the first is constant along every row, so of rank 1; the second is noise."""
    images = image_set(count, seed, side=side)
    images.images[:, 0] = images.images[:, 0, :, :1]
    return images


def looks_only_at(layer: nn.Conv2d, channels: range, colour: int) -> None:
    """Makes some of a layer's channels read one input only."""
    with torch.no_grad():
        for channel in channels:
            kept = layer.weight[channel, colour].clone()
            layer.weight[channel] = 0
            # Of length 2, so that no batch norm's shift can silence the map.
            layer.weight[channel, colour] = 2 * kept / kept.norm()


def reader(first: nn.Module, channels: int = CHANNELS) -> nn.Module:
    """A network whose second layer reads the first layer's maps after batch norm and ReLU."""
    torch.manual_seed(0)
    return randomise(
        nn.Sequential(
            first, nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    ).eval()


def plain(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """Without padding: a border of zeros would give a striped image a second rank."""
    torch.manual_seed(1)
    return nn.Conv2d(inputs, outputs, size)


def share_of(model: nn.Module, images: Tensor, layer: str = "0", threshold: float = 0.5) -> LayerEvidence:
    ranks = feature_map_ranks(LayerWalk.trace(model, images[:1]), images)
    report = find_sensitive_layers(ranks, rank_threshold=threshold)
    return next(evidence for evidence in report.layers if evidence.layer == layer)


class TestTheRankOfAMap:
    """A layer that passes its input on, read by the next one."""

    @staticmethod
    def rank(image: Tensor) -> float:
        side = image.shape[-1]
        first = nn.Conv2d(1, 2, 1, bias=False)
        model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(2, 3, 1)).eval()
        with torch.no_grad():
            first.weight.fill_(1.0)
        walk = LayerWalk.trace(model, torch.randn(1, 1, side, side))
        found = feature_map_ranks(walk, image.reshape(1, 1, side, side))["0"].ranks
        assert found[0] == found[1]
        return float(found[0]) * side

    @pytest.mark.parametrize("side", [4, 7, 16])
    def test_is_0_of_nothing_1_of_a_constant_and_full_of_the_identity(self, side: int) -> None:
        assert self.rank(torch.zeros(side, side)) == 0
        assert self.rank(torch.full((side, side), 3.0)) == 1
        assert self.rank(torch.eye(side)) == side

    @pytest.mark.parametrize("rank", [1, 2, 5])
    def test_is_the_number_of_outer_products_in_it(self, rank: int) -> None:
        generator = torch.Generator().manual_seed(rank)
        products = torch.rand(16, rank, generator=generator) @ torch.rand(rank, 16, generator=generator)
        assert self.rank(products) == rank

    def test_is_taken_after_the_activation(self) -> None:
        assert self.rank(-torch.eye(8)) == 0

    def test_is_averaged_over_the_images(self) -> None:
        model = reader(nn.Conv2d(2, CHANNELS, 1, bias=False))
        walk = LayerWalk.trace(model, torch.randn(1, 2, 8, 8))
        one, other = (striped(1, seed).images for seed in (0, 1))
        each = [feature_map_ranks(walk, images)["0"].ranks for images in (one, other, other)]
        both = feature_map_ranks(walk, torch.cat([one, other, other]))["0"].ranks
        assert np.allclose(both, np.mean(each, axis=0))

    def test_is_measured_by_the_maps_own_smaller_side(self) -> None:
        model = reader(nn.Conv2d(2, CHANNELS, 1))
        wide = torch.randn(4, 2, 5, 20, generator=torch.Generator().manual_seed(0))
        found = feature_map_ranks(LayerWalk.trace(model, wide[:1]), wide)["0"]
        assert (found.height, found.width) == (5, 20)
        assert found.ranks.max() == pytest.approx(1.0)

    @pytest.mark.parametrize(("side", "seen"), [(3, False), (4, True), (5, True)])
    def test_of_fewer_than_four_pixels_a_side_is_no_evidence(self, side: int, seen: bool) -> None:
        images = torch.randn(4, 2, side, side, generator=torch.Generator().manual_seed(0))
        ranks = feature_map_ranks(LayerWalk.trace(reader(nn.Conv2d(2, CHANNELS, 1)), images[:1]), images)
        assert ("0" in ranks) == seen

    def test_of_a_map_read_twice_in_a_pass_is_an_average_too(self) -> None:
        """A head that is called on two inputs, as in detectors."""
        torch.manual_seed(0)
        head = nn.Conv2d(CHANNELS, CHANNELS, 1)

        def forward(net: Net, images: Tensor) -> Tensor:
            return net.z(torch.relu(net.head(torch.relu(net.head(net.a(images))))))

        walk = LayerWalk.trace(
            Net(forward, a=nn.Conv2d(2, CHANNELS, 1), head=head, z=conv(CHANNELS, 3)), image_set(1).images
        )
        ranks = feature_map_ranks(walk, image_set(4).images)
        assert all(found.ranks.min() >= 0 and found.ranks.max() <= 1 for found in ranks.values())
        assert "a" in ranks

    def test_of_maps_of_several_sizes_is_measured_by_each_one_s_own_side(self) -> None:
        """A head over a pyramid: its maps have full rank at both sizes."""
        torch.manual_seed(0)

        def forward(net: Net, images: Tensor) -> Tensor:
            fine = net.head(images)
            return net.z(torch.relu(fine)).mean((2, 3)) + net.z(torch.relu(net.head(images[..., ::2, ::2]))).mean(
                (2, 3)
            )

        walk = LayerWalk.trace(
            Net(forward, head=nn.Conv2d(2, CHANNELS, 1, bias=False), z=conv(CHANNELS, 3)), image_set(1, side=16).images
        )
        found = feature_map_ranks(walk, image_set(4, side=16).images)["head"]
        assert (found.height, found.width) == (16, 16)
        assert found.ranks.max() == pytest.approx(1.0)

    def test_of_a_map_that_is_not_finite_is_refused(self) -> None:
        walk = toy_walk()
        with torch.no_grad():
            walk.model.stem.weight[0] = math.nan
        with pytest.raises(EvaluationError, match="feature map is not finite; check the network's weights"):
            feature_map_ranks(walk, image_set(2).images)


class TestTheLowRankShare:
    @pytest.mark.parametrize("low", [0, 1, 3, 8])
    @pytest.mark.parametrize("size", [1, 3])
    def test_is_exactly_that_of_the_maps_made_to_be_of_rank_1(self, low: int, size: int) -> None:
        first = plain(2, CHANNELS, size)
        looks_only_at(first, range(low), colour=0)
        looks_only_at(first, range(low, CHANNELS), colour=1)
        evidence = share_of(reader(first), striped(32, side=12).images)
        assert evidence.low_rank_share == low / CHANNELS
        assert sum(evidence.histogram) == CHANNELS
        assert sum(evidence.histogram[:5]) == low

    def test_counts_dead_maps(self) -> None:
        first = plain(2, CHANNELS)
        model = reader(first)
        looks_only_at(first, range(CHANNELS), colour=1)
        with torch.no_grad():
            model[1].bias[:2] = -100.0
        assert share_of(model, striped(16, side=12).images).low_rank_share == 2 / CHANNELS

    def test_rises_with_the_rank_threshold(self) -> None:
        model, images = reader(plain(2, CHANNELS)), image_set(16, side=12).images
        shares = [share_of(model, images, threshold=threshold).low_rank_share for threshold in (0.0, 0.5, 0.9, 1.0)]
        assert shares == sorted(shares)
        assert shares[0] == 0.0
        assert shares[-1] > 0.5


def two_layers(rank_one: str) -> Net:
    """Convolutions ``p`` and ``q`` side by side; the named one reads only stripes, and the other reads only noise."""

    def forward(net: Net, images: Tensor) -> Tensor:
        maps = [torch.relu(layer(images)) for layer in (net.p, net.q)]
        return net.fc(torch.relu(net.z(torch.cat(maps, 1))).mean((2, 3)))

    torch.manual_seed(0)
    net = Net(forward, p=plain(2, CHANNELS), q=plain(2, CHANNELS), z=conv(2 * CHANNELS, 6), fc=nn.Linear(6, 4))
    for name in ("p", "q"):
        looks_only_at(getattr(net, name), range(CHANNELS), colour=0 if name == rank_one else 1)
    return net.eval()


@pytest.mark.parametrize(("rank_one", "normal"), [("p", "q"), ("q", "p")])
def test_the_layer_of_rank_1_maps_is_protected_and_the_normal_one_is_pruned(rank_one: str, normal: str) -> None:
    net, images = two_layers(rank_one), striped(16)
    dense = LayerWalk.trace(net, images.images[:1])
    report = find_sensitive_layers(feature_map_ranks(dense, images.images))
    assert set(report.sensitive) == {rank_one}
    walk = dense.protecting(report.sensitive)
    assert [unit.name for unit in walk.free] == [normal, "z"]
    assert report.sensitive[rank_one] == (f"sensitive: 100% of the maps of {rank_one} are low-rank (threshold 50%)")

    env = PruningEnv(problem=toy_problem(walk, keep=0.6, report=report, reward_set=images, calibration=images))
    env.action_space.seed(0)
    widths = []
    for _ in range(5):
        env.reset()
        asked, done = [], False
        while not done:
            _, _, done, _, info = env.step(env.action_space.sample())
            asked.append(info["unit"])
        assert asked == [normal, "z"]
        assert info["plan"].widths[rank_one] == CHANNELS
        assert info["plan"].apply(net).get_submodule(rank_one).out_channels == CHANNELS
        widths.append(info["plan"].widths[normal])
    assert min(widths) < CHANNELS


def ranks_of(**layers: tuple[str, list[float]]) -> dict[str, LayerRanks]:
    return {name: LayerRanks(unit, 8, 8, np.array(ranks)) for name, (unit, ranks) in layers.items()}


class TestTheConclusion:
    def test_is_that_a_unit_is_sensitive_if_any_of_its_layers_is(self) -> None:
        ranks = ranks_of(
            stem=("stem", [0.9, 0.9, 0.9, 0.9]),
            inner=("inner", [0.9, 0.9, 0.9, 0.1]),
            joined=("stem", [0.1, 0.1, 0.1, 0.9]),
        )
        report = find_sensitive_layers(ranks)
        assert set(report.sensitive) == {"stem"}
        assert "joined" in report.sensitive["stem"]
        assert report.by_unit()["stem"].layer == "joined"

    @pytest.mark.parametrize(
        ("threshold", "sensitive"), [(0.0, {"a", "b"}), (0.49, {"a", "b"}), (0.5, {"a"}), (0.75, set())]
    )
    def test_takes_layers_whose_share_exceeds_the_layer_threshold(self, threshold: float, sensitive: set[str]) -> None:
        ranks = ranks_of(a=("a", [0.1, 0.1, 0.1, 0.9]), b=("b", [0.1, 0.1, 0.9, 0.9]), c=("c", [0.9] * 4))
        assert set(find_sensitive_layers(ranks, layer_threshold=threshold).sensitive) == sensitive

    def test_takes_maps_below_the_rank_threshold_for_low(self) -> None:
        (evidence,) = find_sensitive_layers(ranks_of(a=("a", [0.25, 0.5, 0.75, 1.0])), rank_threshold=0.5).layers
        assert evidence.low_rank_share == 0.25
        assert evidence.mean_rank == 0.625
        assert evidence.histogram == (0, 0, 1, 0, 0, 1, 0, 1, 0, 1)

    @pytest.mark.parametrize(
        ("top_share", "sensitive"), [(None, "abcd"), (1.0, "abcd"), (0.5, "cb"), (0.25, "c"), (0.0, "")]
    )
    def test_is_limited_to_the_top_share_of_all_layers(self, top_share: float | None, sensitive: str) -> None:
        lows = {"a": 6, "b": 8, "c": 9, "d": 7}
        ranks = ranks_of(**{name: (name, [0.1] * low + [0.9] * (10 - low)) for name, low in lows.items()})
        assert set(find_sensitive_layers(ranks, top_share=top_share).sensitive) == set(sensitive)

    @pytest.mark.parametrize(("share", "count"), [(0.07, 7), (0.29, 29), (0.57, 57)])
    def test_does_not_round_a_whole_share_of_the_layers_up(self, share: float, count: int) -> None:
        """In floating point 0.07 * 100 is 7.000000000000001, which must not be rounded up to 8."""
        ranks = ranks_of(**{f"layer{number}": (f"layer{number}", [0.1]) for number in range(100)})
        assert len(find_sensitive_layers(ranks, top_share=share).sensitive) == count


def small_cnn() -> nn.Module:
    """A plain network with random weights for the digits."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for inputs in (1, 16, 16):
        layers += [conv(inputs, 16), nn.BatchNorm2d(16), nn.ReLU()]
    return randomise(nn.Sequential(*layers, conv(16, 10))).eval()


class TestTheRankPass:
    def test_gives_nearly_the_same_ranks_on_two_disjoint_sets_of_real_images(self) -> None:
        images = load_source("digits").load("train", np.arange(1000))
        walk = LayerWalk.trace(small_cnn(), images[:1])
        one, other = (feature_map_ranks(walk, part) for part in images.split(500))
        assert len(one) == 3
        for layer in one:
            assert np.ptp(one[layer].ranks) > 0.05, "the ranks are all alike, so that their order means nothing"
            assert spearman(one[layer].ranks, other[layer].ranks) > 0.95

    def test_is_the_same_inside_an_autocast_to_16_bits(self) -> None:
        """Outer products of positive numbers: of rank 1, and of rank 15 once rounded to 16 bits."""
        first = nn.Conv2d(2, CHANNELS, 1, bias=False)
        model = nn.Sequential(first, nn.ReLU(), conv(CHANNELS, 6)).eval()
        columns, rows = torch.rand(2, 8, 2, 16, generator=torch.Generator().manual_seed(0)) + 0.1
        images = columns[..., None] * rows[..., None, :]
        with torch.no_grad():
            first.weight.abs_()
        looks_only_at(first, range(4), colour=0)
        walk = LayerWalk.trace(model, images[:1])
        expected = feature_map_ranks(walk, images)["0"].ranks
        with torch.autocast("cpu", torch.bfloat16):
            found = feature_map_ranks(walk, images)["0"].ranks
        assert np.array_equal(found, expected)
        assert expected.tolist() == [1 / 16] * 4 + [2 / 16] * 4

    @pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
    def test_does_not_depend_on_the_batches(self, batch_size: int) -> None:
        images = image_set(24, side=16).images
        walk = LayerWalk.trace(toy_resnet(), images[:1])
        expected = feature_map_ranks(walk, images, batch_size=8)
        found = feature_map_ranks(walk, images, batch_size=batch_size)
        assert list(found) == list(expected)
        for layer, ranks in expected.items():
            assert np.allclose(found[layer].ranks, ranks.ranks, atol=1e-9)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("fails", [True, False])
    def test_leaves_modes_hooks_and_statistics_as_they_were(self, training: bool, fails: bool) -> None:
        walk = toy_walk()
        walk.model.train(training)
        # Freeze one batch norm; the rest of the network is in training mode.
        walk.model.down_bn.eval()
        before = imprint(walk.model)
        if fails:
            with pytest.raises(EvaluationError):
                feature_map_ranks(walk, image_set(2).images * math.nan)
        else:
            feature_map_ranks(walk, image_set(2).images)
        assert imprint(walk.model) == before
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in walk.model.modules())

    def test_reads_every_layer_in_forward_order_with_its_unit(self) -> None:
        images = image_set(4, side=16).images
        ranks = feature_map_ranks(LayerWalk.trace(toy_resnet(), images[:1]), images)
        units = {layer: found.unit for layer, found in ranks.items()}
        # The readers see project's maps after the addition, as maps of the stream; the same holds for up.
        assert units == {"stem": "stem", "down": "down", "project": "up", "mid": "mid"}
        assert list(units) == ["stem", "down", "project", "mid"]
        assert {layer: (found.height, len(found.ranks)) for layer, found in ranks.items()} == {
            "stem": (16, 8),
            "down": (8, 12),
            "project": (8, 16),
            "mid": (8, 24),
        }


class TestTheReport:
    def test_survives_a_json_file(self) -> None:
        images = image_set(8, side=16).images
        ranks = feature_map_ranks(LayerWalk.trace(toy_resnet(), images[:1]), images)
        report = find_sensitive_layers(ranks, rank_threshold=0.9, layer_threshold=0.2)
        assert checked(json.loads(to_file(report)), SensitivityReport, "sensitivity.json") == report
        assert report.sensitive, "nothing is sensitive, so that half of the record is empty"

    def test_says_what_it_found_in_plain_numbers(self) -> None:
        (layer,) = find_sensitive_layers(ranks_of(a=("a", [0.1, 0.9]))).as_record()["layers"]
        assert {type(value) for value in layer.values()} == {str, int, float, list}


class TestTheConfig:
    @staticmethod
    def report_of(*overrides: str) -> SensitivityReport | None:
        config = digits_config("sensitivity.probe_keep=null", "budget.keep=0.95", *overrides)
        return build_problem(config, load_splits(config), trained_digits()).report

    def test_sets_both_thresholds(self) -> None:
        report = self.report_of("sensitivity.rank_threshold=0.85", "sensitivity.layer_threshold=0.6")
        assert report is not None
        assert (report.rank_threshold, report.layer_threshold) == (0.85, 0.6)
        assert set(report.sensitive) == {layer.unit for layer in report.layers if layer.low_rank_share > 0.6}
        assert 0 < len(report.sensitive) < len(report.by_unit())

    def test_sets_the_top_share(self) -> None:
        settings = ("sensitivity.rank_threshold=0.9", "sensitivity.layer_threshold=0.1")
        everything = self.report_of(*settings)
        one = self.report_of(*settings, "sensitivity.top_share=0.05")
        assert everything is not None
        assert one is not None
        assert (len(everything.sensitive) > 1, len(one.sensitive)) == (True, 1)

    def test_sets_the_number_of_images(self) -> None:
        counts: list[int] = []
        model = trained_digits()
        # Give the execution settings, because open settings would be timed on parts of the images.
        execution = "execution={layout: channels_last, dtype: float32, folded: true, batch: 64, threads: 1}"
        config = digits_config("sensitivity.images=10", execution)
        splits = load_splits(config)
        handle = model.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
        try:
            build_problem(config, splits, model)
        finally:
            handle.remove()
        assert 10 in counts
        assert not any(10 < count < 40 for count in counts)

    def test_can_do_without(self) -> None:
        assert self.report_of("sensitivity.enabled=false") is None

    def test_that_makes_everything_sensitive_is_refused_with_the_reasons(self) -> None:
        stage3 = {f"layer3.{block}.conv{number}": "no evidence" for block in range(3) for number in (1, 2)}
        config = digits_config(
            "sensitivity.rank_threshold=1", "sensitivity.layer_threshold=0", f"env.protect={json.dumps(stage3)}"
        )
        with pytest.raises(BudgetError, match=r"Nothing .*can be pruned.*conv1: sensitive: \d+% of the maps of"):
            build_problem(config, digits_splits(), trained_digits())

    def test_keeps_sensitive_units_at_full_width_through_an_episode(self) -> None:
        config = digits_config(
            "sensitivity.rank_threshold=0.85",
            "sensitivity.layer_threshold=0.6",
            "sensitivity.probe_keep=null",
            "budget.keep=0.9",
        )
        problem = build_problem(config, load_splits(config), trained_digits())
        assert problem.report is not None
        sensitive = set(problem.report.sensitive)
        assert sensitive, "nothing is sensitive"
        env = PruningEnv(problem=problem)
        env.reset()
        for _ in problem.budget.units:
            *_, info = env.step(np.array([-1.0], dtype=np.float32))
        for unit in problem.walk.units:
            full = unit.name in sensitive or not unit.free
            assert (info["plan"].widths[unit.name] == unit.channels) == full


@pytest.mark.parametrize("count", [1, 5, 64], ids=["fewer images than parts", "uneven parts", "many"])
def test_the_ranks_do_not_depend_on_the_number_of_threads(count: int) -> None:
    model, images = toy_resnet(), striped(count, side=12).images
    walk = LayerWalk.trace(model, images[:1])
    one = feature_map_ranks(walk, images)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = feature_map_ranks(walk, images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert one.keys() == several.keys()
    assert len({len(found.ranks) for found in one.values()}) > 1
    for layer, found in one.items():
        assert found.ranks.tolist() == several[layer].ranks.tolist()
