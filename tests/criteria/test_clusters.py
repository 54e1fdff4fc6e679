"""Filter clusters: learned features reveal planted groups, and one filter of each group stays."""

from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from torch import nn
from toy import image_set, toy_resnet, toy_walk
from zoo import conv, unit_of

from benchmarks.control_criteria.clusters import pca, raw, shared
from benchmarks.control_criteria.kernels import pooled
from prune_env import LayerWalk
from prune_env.common.errors import ConfigError
from prune_env.criteria import ScoringContext, score_channels
from prune_env.criteria.clusters import (
    Features,
    FilterAutoencoder,
    kmeans,
    learned_features,
    live_filters,
    nested_order,
    score_widths,
    select_representatives,
)
from prune_env.criteria.clusters.filters import compact, standardise
from prune_env.criteria.clusters.nested import rungs

CRITERIA = ["clusters", "clusters_shared", "clusters_pca", "clusters_raw"]


def scoring_context(walk: LayerWalk, seed: int = 0) -> ScoringContext:
    return ScoringContext(walk, image_set(4), seed)


def planted(groups: int = 8, copies: int = 8, noise: float = 1e-2, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """Group labels [n], shuffled, and filters [n, 6, 3, 3]: prototypes of standard deviation 1 and noise."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(groups, 6, 3, 3, generator=generator)
    labels = torch.arange(groups).repeat(copies)[torch.randperm(groups * copies, generator=generator)]
    weight = prototypes[labels]
    return labels.numpy(), weight + noise * torch.randn(weight.shape, generator=generator)


def planted_walk(weight: torch.Tensor) -> LayerWalk:
    """Two convolutions, unit ``0`` with the given filters."""
    torch.manual_seed(0)
    model = nn.Sequential(conv(weight.shape[1], len(weight), bias=False), nn.ReLU(), conv(len(weight), 4))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    return LayerWalk.trace(model, torch.zeros(1, weight.shape[1], 8, 8))


def gabors(groups: int, copies: int, noise: float, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """Group labels [n], and standardised Gabor filters [n, 81] turned by ``groups`` evenly spaced angles, nearly."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(groups), copies)
    angles = (np.pi / groups * (labels + generator.uniform(-0.15, 0.15, len(labels))))[:, None, None]
    y, x = np.mgrid[-4:5, -4:5]
    waves = np.cos(2 * np.pi / 5 * (x * np.cos(angles) + y * np.sin(angles)))
    rows = (np.exp(-(x**2 + y**2) / 9.7) * waves).reshape(len(labels), -1)
    rows = rows / rows.std() + noise * generator.standard_normal(rows.shape)
    return labels, standardise(torch.from_numpy(rows).float())


@pytest.mark.slow
@pytest.mark.parametrize("features", [learned_features, shared, pca, raw])
def test_of_eight_prototypes_in_noisy_copies_one_filter_each_stays(features: Features) -> None:
    labels, weight = planted()
    context = ScoringContext(planted_walk(weight))
    unit = unit_of(context.walk, "0")
    points = features({"0": live_filters(context, unit)}, 0)["0"]
    assert adjusted_rand_score(labels, kmeans(points, 8, 0).labels) > 0.95
    kept = context.walk.plan({"0": 8}, score_widths(context, {"0": 8}, features)).kept["0"]
    assert sorted(labels[list(kept)]) == list(range(8))
    # The same holds after a descent of the ladder through 56 ever narrower widths.
    assert sorted(labels[nested_order(points, 0)[-8:]]) == list(range(8))


def test_what_stays_is_the_original_filter_bit_for_bit() -> None:
    _, weight = planted()
    walk = planted_walk(weight)
    plan = walk.plan({"0": 8}, score_widths(ScoringContext(walk), {"0": 8}))
    assert torch.equal(plan.apply(walk.model)[0].weight, weight[list(plan.kept["0"])])


@torch.no_grad()
def restoring_loss(learner: FilterAutoencoder, rows: torch.Tensor) -> float:
    """The mean squared difference between filters and their reconstructions."""
    return float((learner.decoder(learner.encoder(rows)) - rows).square().mean())


@pytest.mark.slow
class TestFilterAutoencoder:
    def test_restores_a_curved_family_of_filters_better_than_as_many_principal_components(self) -> None:
        _, rows = gabors(24, 8, noise=0.0)
        learner = FilterAutoencoder(81, latent=3, hidden=40)
        before = restoring_loss(learner, rows)
        learner.fit(rows)
        flat = PCA(3).fit(rows)
        linear = float(((flat.inverse_transform(flat.transform(rows)) - rows.numpy()) ** 2).mean())
        assert restoring_loss(learner, rows) < before / 10
        assert restoring_loss(learner, rows) < linear / 2

    @pytest.mark.parametrize("seed", range(2))
    def test_tells_noisy_filters_apart_by_their_angle_better_than_their_weights_do(self, seed: int) -> None:
        labels, rows = gabors(24, 8, noise=0.3, seed=seed)
        latent = FilterAutoencoder(81, latent=3, hidden=40, seed=seed).fit(rows).double().numpy()
        learned, direct = (
            adjusted_rand_score(labels, kmeans(points, 24, seed).labels) for points in (latent, rows.double().numpy())
        )
        assert learned > direct + 0.05
        assert learned > 0.9

    def test_decides_what_stays_by_its_weights(self) -> None:
        rows = torch.randn(32, 20, generator=torch.Generator().manual_seed(0))
        learner = FilterAutoencoder(20, latent=8, hidden=10)

        def chosen() -> list[int]:
            points = learner.encode(rows).double().numpy()
            return select_representatives(points, *kmeans(points, 12, 0), np.ones(32)).tolist()

        fitted = [learner.fit(rows), chosen()][1]
        assert chosen() == fitted
        with torch.no_grad():
            learner.encoder[0].weight.copy_(learner.encoder[0].weight.flip(1))
        assert chosen() != fitted

    def test_is_what_the_criterion_goes_by(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context = scoring_context(toy_walk())
        fitted = score_channels("clusters", context)["up"]
        monkeypatch.setattr(FilterAutoencoder, "fit", lambda self, rows: self.encode(rows))
        assert not np.array_equal(score_channels("clusters", context)["up"], fitted)
        assert not np.array_equal(score_channels("clusters_raw", context)["up"], fitted)

    def test_sees_many_filters_in_batches(self) -> None:
        rows = gabors(20, 20, noise=0.0)[1]
        learner = FilterAutoencoder(81, latent=4, hidden=20)
        before = restoring_loss(learner, rows)
        assert learner.fit(rows, steps=200, batch=16).shape == (400, 4)
        assert restoring_loss(learner, rows) < before / 4


class TestRepresentatives:
    def test_are_nearest_to_the_centroids_and_ascend(self) -> None:
        features = np.array([[10.0], [11.0], [13.0], [0.0], [1.0], [5.0]])
        labels = np.array([1, 1, 1, 0, 0, 0])
        centroids = np.array([[2.0], [34 / 3]])
        assert select_representatives(features, labels, centroids, np.ones(6)).tolist() == [1, 4]

    def test_of_equal_distance_have_the_larger_norm_then_the_lower_channel(self) -> None:
        features, labels, centroid = np.array([[-1.0], [1.0], [1.0], [-1.0]]), np.zeros(4, int), np.zeros((1, 1))
        assert select_representatives(features, labels, centroid, np.array([1.0, 1, 3, 3])).tolist() == [2]
        assert select_representatives(features, labels, centroid, np.ones(4)).tolist() == [0]

    @pytest.mark.parametrize("k", range(1, 10))
    def test_are_exactly_as_many_where_fewer_filters_differ(self, k: int) -> None:
        features = np.repeat([[0.0, 0.0], [1.0, 5.0], [7.0, 1.0]], 3, axis=0)
        chosen = select_representatives(features, *kmeans(features, k, 0), np.arange(9.0))
        assert len(np.unique(chosen)) == k
        assert chosen.tolist() == sorted(chosen)
        assert len(np.unique(chosen // 3)) == min(k, 3)

    def test_take_the_farthest_filter_for_an_empty_cluster(self) -> None:
        features = np.array([[0.0], [1.0], [9.0], [9.0]])
        chosen = select_representatives(features, np.zeros(4, int), np.zeros((2, 1)), np.array([1.0, 1, 1, 2]))
        assert chosen.tolist() == [0, 3]


class TestNestedOrder:
    @pytest.mark.parametrize("channels", [1, 2, 3, 24, 64, 65, 200])
    def test_names_every_filter_once(self, channels: int) -> None:
        points = np.random.default_rng(0).standard_normal((channels, 3))
        points[channels // 2 :] = points[-1]
        assert sorted(nested_order(points, 0, starts=1)) == list(range(channels))

    def test_has_a_rung_for_every_width_of_a_small_unit_and_few_for_a_large_one(self) -> None:
        assert rungs(64) == list(range(63, 0, -1))
        assert len(rungs(512)) == 23
        assert rungs(512)[-1] == 1
        assert rungs(1) == []

    def test_keeps_about_what_clustering_at_each_width_alone_keeps(self) -> None:
        # Sixteen prototypes with four noisy copies each: only width 16 is easy.
        points = planted(16, 4, noise=0.5)[1].flatten(1).double().numpy()
        order = nested_order(points, 0)
        shuffled = np.random.default_rng(0).permutation(64)

        def distortion(kept: np.ndarray) -> float:
            return float((cdist(points, points[kept]).min(axis=1) ** 2).sum())

        agreed, by_chance = [], []
        for width in range(8, 64, 8):
            free = select_representatives(points, *kmeans(points, width, 1), np.ones(64))
            nested, chance = order[-width:], shuffled[-width:]
            agreed.append(np.isin(nested, free).mean())
            by_chance.append(np.isin(chance, free).mean())
            # With 8 prototypes both radii are loose; at every width the ladder is at most a tenth worse.
            assert distortion(nested) < 1.1 * distortion(free)
            assert distortion(chance) > 1.1 * distortion(free)
        assert np.mean(agreed) > np.mean(by_chance) + 0.1


class TestFilters:
    def test_of_a_coupled_unit_are_those_of_all_that_writes_it(self) -> None:
        walk = toy_walk()
        filters = live_filters(ScoringContext(walk), unit_of(walk, "up"))
        parts = [getattr(walk.model, name).weight for name in ("up", "project", "out")]
        sizes = sorted(weight[0].numel() for weight in parts)
        assert sorted(layer[0].numel() for layer in filters.layers) == sizes
        assert filters.rows.shape == (16, sum(sizes))
        assert filters.norms**2 == pytest.approx(sum(w.detach().flatten(1).square().sum(1).numpy() for w in parts))

    def test_are_standardised_layer_by_layer(self) -> None:
        model = toy_resnet()
        before = live_filters(ScoringContext(toy_walk(model)), unit_of(toy_walk(model), "up"))
        for layer in before.layers:
            assert layer.mean(dim=0).abs().max() < 1e-5
            assert float(layer.square().mean()) == pytest.approx(1.0, rel=1e-4)
        with torch.no_grad():
            model.out.weight.mul_(100)
        after = live_filters(ScoringContext(toy_walk(model)), unit_of(toy_walk(model), "up"))
        torch.testing.assert_close(after.rows, before.rows, rtol=1e-4, atol=1e-4)

    def test_have_their_batch_norms_folded_in(self) -> None:
        walk = toy_walk()
        norm, weight = walk.model.stem_bn, walk.model.stem.weight.detach()
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        expected = (weight.flatten(1).norm(dim=1) * scale).numpy()
        assert live_filters(scoring_context(walk), unit_of(walk, "stem")).norms == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("weights", [5, 500])
    def test_keep_their_distances_in_fewer_axes(self, weights: int) -> None:
        rows = standardise(torch.randn(20, weights, generator=torch.Generator().manual_seed(0)))
        points = compact(rows)
        assert points.shape == (20, min(20, weights))
        assert cdist(points, points) == pytest.approx(cdist(rows, rows), abs=1e-3)

    def test_of_any_number_of_inputs_have_features_that_the_order_of_inputs_does_not_change(self) -> None:
        encoder = FilterAutoencoder(9, latent=5, hidden=8)
        kernels = torch.randn(4, 7, 9, generator=torch.Generator().manual_seed(0))
        features = pooled(encoder, kernels)
        assert features.shape == pooled(encoder, kernels[:, :3]).shape == (4, 10)
        torch.testing.assert_close(pooled(encoder, kernels.flip(1)), features)


@pytest.mark.slow
@pytest.mark.parametrize("name", CRITERIA)
class TestCriteria:
    @pytest.fixture(autouse=True)
    def quickly_learned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FilterAutoencoder, "fit", partialmethod(FilterAutoencoder.fit, steps=30))

    def test_put_the_channels_of_every_free_unit_in_an_order(self, name: str) -> None:
        walk = toy_walk()
        scores = score_channels(name, scoring_context(walk))
        assert set(scores) == {unit.name for unit in walk.units}
        for unit in walk.free:
            assert sorted(scores[unit.name]) == list(range(1, unit.channels + 1))

    def test_let_dead_filters_go_first(self, name: str) -> None:
        model = toy_resnet()
        with torch.no_grad():
            model.stem.weight[[1, 4, 5]] = 0
            for layer in (model.up, model.project, model.out):
                layer.weight[7] = 0
            model.up.weight[3] = 0  # two other layers still write this one
        walk = toy_walk(model)
        scores = score_channels(name, scoring_context(walk))
        assert np.flatnonzero(scores["stem"] == 0).tolist() == [1, 4, 5]
        assert np.flatnonzero(scores["up"] == 0).tolist() == [7]

    def test_depend_on_the_seed_alone_and_leave_other_generators_alone(self, name: str) -> None:
        walk = toy_walk()
        torch.manual_seed(1)
        np.random.seed(1)
        states = torch.get_rng_state(), np.random.get_state()[1].copy()
        once = score_channels(name, scoring_context(walk))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        torch.manual_seed(2)
        again = score_channels(name, scoring_context(walk))
        other = score_channels(name, replace(scoring_context(walk), seed=5))
        assert all(np.array_equal(once[unit], again[unit]) for unit in once)
        assert any(not np.array_equal(once[unit], other[unit]) for unit in once)

    def test_are_refused_without_images(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"'{name}' needs images"):
            score_channels(name, ScoringContext(toy_walk()))


def test_a_network_of_dead_filters_is_scored() -> None:
    walk = planted_walk(torch.zeros(8, 3, 3, 3))
    assert np.isfinite(score_channels("clusters", ScoringContext(walk, image_set(4, colours=3)))["0"]).all()


def test_more_filters_than_live_ones_are_filled_up_with_dead_ones() -> None:
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[:3] = 0
    walk = planted_walk(weight)
    kept = [walk.plan({"0": width}, score_widths(ScoringContext(walk), {"0": width})).kept["0"] for width in (3, 4)]
    assert kept == [(3, 4, 5), (0, 3, 4, 5)]
