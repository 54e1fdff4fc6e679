"""Second-order criteria and eigenvalues, against formulas written out by hand and torch's own Hessian."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from second_order import Quadratic, batches_of, full_hessian, one_layer, output_of, relative, smooth_subject
from torch import Tensor, nn
from toy import COLOURS, image_set, toy_resnet, toy_walk
from zoo import body, conv, small_images

from benchmarks.control_criteria import exact_hessian
from benchmarks.control_criteria.exact_hessian import exact_diagonal
from prune_env import LayerWalk
from prune_env.common.errors import ConfigError, EvaluationError, UserError
from prune_env.criteria import ScoringContext, lobs, score_channels
from prune_env.criteria.curvature import channel_quadratics
from prune_env.criteria.eigenvalues import layer_eigenvalues, top_eigenvalue
from prune_env.criteria.fisher import fisher_diagonal
from prune_env.criteria.hutchinson import hutchinson_diagonal
from prune_env.criteria.patch_covariance import patches, shrunk_inverse_diagonal
from prune_env.data import Batch, ImageSet
from prune_env.tasks.classification import sampled_labels

pytestmark = pytest.mark.slow

LAYERWISE = ("lobs", "lobs_diagonal", "lobs_block")
FISHERS = ("fisher", "empirical_fisher", "fisher_block")
ALL = (*LAYERWISE, *FISHERS, "hutchinson", "hessian", "hessian_block")
RANDOM = ("fisher", "fisher_block", "hutchinson")
NOTHING = [Batch(torch.zeros(1, 1), torch.zeros(1))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetric(size: int = 12) -> Tensor:
    root = torch.randn(size, size, generator=generator(2), dtype=torch.float64)
    return root @ root.T / size


def small(name: str) -> nn.Module:
    """A small network; the smallest one for the criteria that need a product for each weight."""
    return toy_resnet(1 if name == "hessian" else 2)


def labelled(images: Tensor) -> ImageSet:
    return ImageSet(images, torch.arange(len(images)) % 4)


class TestAQuadraticLoss:
    def test_has_the_diagonal_of_its_matrix(self) -> None:
        model = Quadratic(matrix := symmetric(), (3, 4))
        found = exact_diagonal(output_of(model), NOTHING, {"w": model.weight})["w"]
        assert torch.allclose(found.flatten(), matrix.diagonal(), rtol=1e-12)

    def test_is_estimated_by_probes(self) -> None:
        model = Quadratic(matrix := symmetric(), (3, 4))
        found = hutchinson_diagonal(output_of(model), NOTHING, {"w": model.weight}, 2000, generator())["w"]
        assert relative(found.flatten(), matrix.diagonal()) < 0.05

    @pytest.mark.parametrize("probes", [1, 3])
    def test_of_a_diagonal_matrix_needs_one_probe_and_predicts_the_actual_change(self, probes: int) -> None:
        model = Quadratic(matrix := symmetric().diagonal().diag(), (3, 4))
        diagonal = hutchinson_diagonal(output_of(model), NOTHING, {"w": model.weight}, probes, generator())["w"]
        predicted = channel_quadratics(model.weight, diagonal)
        by_hand = 0.5 * (matrix.diagonal().view(3, 4) * model.weight.detach() ** 2).sum(1)
        assert predicted == pytest.approx(by_hand.numpy(), rel=1e-12)
        # The minimum is at w = 0, where a displacement by minus the channel's weights costs as much.
        for channel in range(3):
            cut = Quadratic(matrix, (3, 4))
            with torch.no_grad():
                cut.weight.copy_(torch.zeros(3, 4)).view(3, 4)[channel] = -model.weight[channel]
            assert cut(torch.zeros(1)).item() == pytest.approx(predicted[channel], rel=1e-12)

    def test_is_averaged_over_batches_by_their_images(self) -> None:
        weight = torch.ones(1, 2, requires_grad=True)

        class Curved(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return images * (weight**2).sum() / 2

        images = torch.tensor([[1.0], [2.0], [6.0]])
        batches = [Batch(images[:2], images[:2]), Batch(images[2:], images[2:])]

        def loss(batch: Batch) -> Tensor:
            return Curved()(batch.images).mean()

        for found in (
            exact_diagonal(loss, batches, {"w": weight}),
            hutchinson_diagonal(loss, batches, {"w": weight}, 2, generator()),
        ):
            assert found["w"].flatten().tolist() == pytest.approx([3.0, 3.0])


class TestTheHessian:
    def test_diagonal_is_torchs(self) -> None:
        context = smooth_subject()
        data = context.data
        found = exact_diagonal(context.mean_loss, batches_of(data, 5), context.weights)
        for name in context.weights:
            expected = full_hessian(context, name).diagonal()
            assert relative(found[name].flatten(), expected.double()) < 1e-4

    def test_scores_are_half_the_magnitudes_of_the_sums(self) -> None:
        context = smooth_subject()
        scores = score_channels("hessian", context)
        for name in ("0", "2"):
            weight = context.weights[name].detach()
            sums = (full_hessian(context, name).diagonal().view_as(weight) * weight**2).flatten(1).sum(1)
            assert scores[name] == pytest.approx(0.5 * sums.abs().numpy(), rel=1e-3)

    def test_block_is_the_quadratic_form_of_torchs_hessian(self) -> None:
        context = smooth_subject(count=10)
        scores = score_channels("hessian_block", context)
        for name in ("0", "2"):
            full = full_hessian(context, name)
            for channel in range(len(context.weights[name])):
                vector = torch.zeros_like(context.weights[name])
                vector[channel] = context.weights[name].detach()[channel]
                exact = 0.5 * (vector.flatten() @ full @ vector.flatten()).abs()
                assert scores[name][channel] == pytest.approx(float(exact), rel=1e-3, abs=1e-8)

    def test_block_of_a_coupled_unit_counts_what_couples_its_members(self) -> None:
        context = ScoringContext(toy_walk(toy_resnet(4)), image_set(6))
        members = [context.weights[name] for name in ("up", "project", "out")]
        batch = next(context.batches())
        for channel in (0, 5):
            # The second derivative of the loss along the direction in which all of the channel's weights vanish.
            def loss(step: Tensor, channel: int = channel) -> Tensor:
                scaled = {}
                for name, weight in zip(("up", "project", "out"), members, strict=True):
                    mask = torch.zeros(len(weight), 1, 1, 1)
                    mask[channel] = 1.0
                    scaled[f"{name}.weight"] = weight.detach() * (1 + step * mask)
                return F.cross_entropy(torch.func.functional_call(context.folded, scaled, (batch[0],)), batch[1])

            exact = torch.autograd.functional.hessian(loss, torch.zeros(()))
            found = score_channels("hessian_block", context)["up"][channel]
            assert found == pytest.approx(abs(0.5 * float(exact)), rel=1e-3, abs=1e-7)

    def test_estimate_nears_it_with_the_square_root_of_the_probes(self) -> None:
        data = image_set(60, seed=3, side=6, classes=10)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(COLOURS, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(100, 10))
        context = ScoringContext(LayerWalk.trace(model, data.images[:1]), data)
        weights = {"0": context.weights["0"]}
        full = full_hessian(context, "0").double()
        # The variance of v_q (H v)_q is the sum of the squares of row q without the diagonal.
        spread = float((full - full.diagonal().diag()).norm() / full.diagonal().norm())
        errors = {}
        for probes in (30, 300, 1200):
            found = hutchinson_diagonal(context.mean_loss, batches_of(data, 60), weights, probes, generator())
            errors[probes] = relative(found["0"].flatten(), full.diagonal())
            assert errors[probes] == pytest.approx(spread / probes**0.5, rel=0.35)
        assert errors[300] < 0.1

    def test_of_too_many_weights_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context = smooth_subject()
        size = sum(weight.numel() for weight in context.weights.values())
        monkeypatch.setattr(exact_hessian, "MOST_WEIGHTS", size - 1)
        with pytest.raises(ConfigError, match=rf"{size} weights; at most {size - 1} .*'hutchinson'.*'lobs'"):
            score_channels("hessian", context)


class TestPatches:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(4, 6, 3, padding=1),
            nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
            nn.Conv2d(4, 6, 3, padding=2, groups=2, padding_mode="circular"),
            nn.Conv2d(4, 8, 3, padding="same", groups=4, bias=False),
            nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        ],
        ids=["plain", "strided", "grouped circular", "depthwise same", "reflecting"],
    )
    def test_times_weights_are_the_outputs(self, layer: nn.Conv2d) -> None:
        images = torch.randn(3, 4, 7, 8, generator=generator())
        found = patches(layer, images)
        weight = layer.weight.view(layer.groups, -1, found.shape[2])
        outputs = torch.einsum("ngdp,god->ngop", found, weight).flatten(1, 2)
        expected = layer(images) - (0 if layer.bias is None else layer.bias.view(-1, 1, 1))
        assert torch.allclose(outputs.view_as(expected), expected, atol=1e-5)

    def test_of_a_convolution_are_those_of_unfold(self) -> None:
        images = torch.randn(2, 3, 6, 6, generator=generator())
        found = patches(nn.Conv2d(3, 4, 3, stride=2, padding=1), images)
        assert torch.equal(found.squeeze(1), F.unfold(images, 3, stride=2, padding=1))


def second_moment(images: Tensor, bias: bool) -> np.ndarray:
    """H over 3 x 3 patches with padding 1, the bias' constant input last; by F.unfold and NumPy."""
    rows = F.unfold(images, 3, padding=1).permute(0, 2, 1).flatten(0, 1).double().numpy()
    if bias:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    return rows.T @ rows / len(rows)


class TestLayerwise:
    @pytest.mark.parametrize("bias", [True, False])
    def test_obs_is_the_formula(self, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lobs, "SHRINKAGE", 1e-9)
        images = torch.randn(40, 2, 8, 8, generator=generator()) + 0.5
        layer = conv(2, 5, bias=bias)
        inverse = np.linalg.inv(second_moment(images, bias)).diagonal()[:18]
        expected = 0.5 * (layer.weight.detach().flatten(1).numpy() ** 2 / inverse).sum(1)
        scores = score_channels("lobs", one_layer(layer, images, conv(5, 4)))
        assert scores["0"] == pytest.approx(expected, rel=1e-4)

    def test_diagonal_and_block_are_the_formulas(self) -> None:
        images = torch.randn(40, 2, 8, 8, generator=generator()) + 0.5
        layer = conv(2, 5)
        rows = layer.weight.detach().flatten(1).double().numpy()
        moment = second_moment(images, bias=False)
        context = one_layer(layer, images, conv(5, 4))
        diagonal = 0.5 * (rows**2 * moment.diagonal()).sum(1)
        assert score_channels("lobs_diagonal", context)["0"] == pytest.approx(diagonal, rel=1e-5)
        block = 0.5 * np.einsum("cp,pq,cq->c", rows, moment, rows)
        assert score_channels("lobs_block", context)["0"] == pytest.approx(block, rel=1e-5)

    @pytest.mark.parametrize("name", LAYERWISE)
    def test_of_a_linear_layer_with_whitened_inputs_is_half_its_squared_norm(self, name: str) -> None:
        raw = torch.randn(200, 6, generator=generator(), dtype=torch.float64) @ symmetric(6)
        raw = raw - raw.mean(0)
        white = torch.linalg.qr(raw).Q * len(raw) ** 0.5
        layer = nn.Linear(6, 4)
        expected = 0.5 * (layer.weight.detach() ** 2).sum(1).numpy()
        scores = score_channels(name, one_layer(layer, white.float(), nn.Linear(4, 3)))
        assert scores["0"] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("name", LAYERWISE)
    def test_of_scaled_inputs_scale_by_the_square(self, name: str) -> None:
        images = torch.randn(20, 2, 8, 8, generator=generator())
        layer, tail = conv(2, 5), conv(5, 4)
        once, scaled = (score_channels(name, one_layer(layer, s * images, tail))["0"] for s in (1.0, 3.0))
        assert scaled == pytest.approx(9.0 * once, rel=1e-4)

    @pytest.mark.parametrize("name", LAYERWISE)
    def test_ranks_a_large_weight_on_a_dark_colour_last_where_l2_ranks_it_first(self, name: str) -> None:
        images = torch.randn(20, 2, 8, 8, generator=generator())
        images[:, 0] *= 0.01
        layer = conv(2, 2)
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[0, 0], layer.weight[1, 1] = 1.0, 0.1
        context = one_layer(layer, images, conv(2, 4))
        assert score_channels("l2", context)["0"].argmin() == 1
        assert score_channels(name, context)["0"].argmin() == 0

    def test_obs_forgives_a_weight_that_another_can_stand_in_for(self) -> None:
        images = torch.randn(20, 2, 8, 8, generator=generator())
        images[:, 1] = images[:, 0] + 0.05 * images[:, 1]
        layer = conv(2, 2, bias=False)
        context = one_layer(layer, images, conv(2, 4))
        ratio = score_channels("lobs", context)["0"] / score_channels("lobs_diagonal", context)["0"]
        assert (ratio < 0.1).all()

    @pytest.mark.parametrize("name", LAYERWISE)
    @pytest.mark.parametrize("groups", [2, 8])
    def test_of_groups_are_those_of_each_group_alone(self, name: str, groups: int) -> None:
        images = torch.randn(10, 8, 6, 6, generator=generator())
        size = 8 // groups
        layer, values = conv(8, 8, groups=groups), []
        for group in range(groups):
            alone = conv(size, size)
            with torch.no_grad():
                alone.weight.copy_(layer.weight[group * size : (group + 1) * size])
                alone.bias.copy_(layer.bias[group * size : (group + 1) * size])
            part = images[:, group * size : (group + 1) * size]
            values.append(score_channels(name, one_layer(alone, part, conv(size, 4)))["0"])
        together = ScoringContext(
            LayerWalk.trace(nn.Sequential(layer, nn.ReLU(), conv(8, 4)), images[:1], {"0": "one slot a channel"}),
            labelled(images),
        )
        # The slots of a unit are added, so a group's values are compared slot by slot.
        expected = np.concatenate(values)
        unit = next(unit for unit in together.walk.units if unit.name == "0")
        summed = expected[unit.members[0].index].sum(1)
        assert score_channels(name, together)["0"] == pytest.approx(summed, rel=1e-4)

    def test_obs_counts_a_layer_without_any_input_as_worthless(self) -> None:
        scores = score_channels("lobs", one_layer(conv(2, 3), torch.zeros(4, 2, 8, 8), conv(3, 2)))
        assert scores["0"] == pytest.approx(np.zeros(3), abs=1e-30)

    def test_obs_of_a_layer_too_wide_to_invert_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lobs, "LARGEST", 17)
        monkeypatch.setattr(lobs, "too_large", lambda weight: weight[0].numel() > 17)
        with pytest.raises(ConfigError, match=r"18 rows for layer '0'; at most 17 .*'lobs_block'"):
            score_channels("lobs", one_layer(conv(2, 3), torch.zeros(4, 2, 8, 8), conv(3, 2)))

    def test_inverse_diagonal_is_that_of_the_damped_matrix(self) -> None:
        matrix = symmetric(5)
        damped = 0.8 * matrix + 0.2 * matrix.diagonal().mean() * torch.eye(5, dtype=torch.float64)
        found = shrunk_inverse_diagonal(matrix.unsqueeze(0), 0.2)
        assert torch.allclose(found[0], damped.inverse().diagonal())


class TestFisher:
    def test_empirical_is_the_mean_square_of_the_images_gradients(self) -> None:
        context = smooth_subject(count=6)
        found = fisher_diagonal(context.mean_loss, batches_of(context.data, 4), context.weights)
        squares = {name: torch.zeros_like(weight) for name, weight in context.weights.items()}
        for image, label in zip(context.images, context.data.targets, strict=True):
            loss = F.cross_entropy(context.folded(image[None]), label[None])
            for name, weight in context.weights.items():
                squares[name] += torch.autograd.grad(loss, weight, retain_graph=True)[0] ** 2 / 6
        for name in squares:
            assert relative(found[name], squares[name].double()) < 1e-5

    def test_true_is_the_gauss_newton_diagonal(self) -> None:
        context = smooth_subject(count=4)
        repeated = [Batch(context.images.repeat(200, 1, 1, 1), context.data.targets.repeat(200))]
        found = fisher_diagonal(context.sampled_loss(generator()), repeated, {"0": context.weights["0"]})["0"]
        expected = torch.zeros_like(context.weights["0"])
        for image in context.images:
            logs = context.folded(image[None]).log_softmax(1)[0]
            for log in logs:
                gradient = torch.autograd.grad(log, context.weights["0"], retain_graph=True)[0]
                expected += log.exp().item() * gradient**2 / len(context.images)
        assert relative(found, expected.double()) < 0.1

    def test_empirical_looks_at_the_labels_and_true_does_not(self) -> None:
        data = image_set(12, seed=3, side=6, classes=2)
        walk = smooth_subject().walk
        for name, same in (("empirical_fisher", False), ("fisher", True), ("fisher_block", True)):
            given, flipped = (
                score_channels(name, ScoringContext(walk, ImageSet(data.images, labels)))["0"]
                for labels in (data.targets, 1 - data.targets)
            )
            assert np.array_equal(given, flipped) is same

    def test_empirical_vanishes_where_the_network_is_right_and_certain(self) -> None:
        context = smooth_subject()
        with torch.no_grad():
            context.walk.model[5].weight.mul_(300)
            right = context.walk.model(context.images).argmax(1)
        fitted = ScoringContext(context.walk, ImageSet(context.images, right))
        wrong = ScoringContext(context.walk, ImageSet(context.images, 1 - right))
        assert (
            score_channels("empirical_fisher", fitted)["0"].sum()
            < 1e-2 * score_channels("empirical_fisher", wrong)["0"].sum()
        )

    def test_block_is_the_mean_square_of_the_losses_slopes_along_all_of_a_channel(self) -> None:
        context = ScoringContext(toy_walk(toy_resnet(4)), image_set(5), seed=4)
        drawn, expected = generator(4), np.zeros(8)
        for image in context.images:
            outputs = context.folded(image[None])
            loss = F.cross_entropy(outputs, sampled_labels(outputs, drawn))
            slopes = np.zeros(8)
            for name in ("up", "project", "out"):
                weight = context.weights[name]
                slope = weight * torch.autograd.grad(loss, weight, retain_graph=True)[0]
                slopes += slope.detach().flatten(1).sum(1).double().numpy()
            expected += 0.5 * slopes**2 / 5
        assert score_channels("fisher_block", context)["up"] == pytest.approx(expected, rel=1e-4)


class TestEigenvalues:
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_power_iteration_finds_the_largest(self, sign: float) -> None:
        matrix = sign * symmetric(30)
        start = torch.randn(30, generator=generator(), dtype=torch.float64)
        values = torch.linalg.eigvalsh(matrix)
        expected = float(values[values.abs().argmax()])
        found = top_eigenvalue(lambda vector: matrix @ vector, start, tolerance=1e-9, iterations=2000)
        assert found == pytest.approx(expected, rel=1e-5)

    def test_power_iteration_stops_at_the_tolerance_and_at_the_limit(self) -> None:
        matrix, products = symmetric(30), [0]

        def product(vector: Tensor) -> Tensor:
            products[0] += 1
            return matrix @ vector

        start = torch.ones(30, dtype=torch.float64)
        loose = top_eigenvalue(product, start, tolerance=1e-2, iterations=1000)
        assert products[0] < 50
        assert loose == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=0.1)
        products[0] = 0
        top_eigenvalue(product, start, tolerance=0.0, iterations=7)
        assert products[0] == 7

    def test_of_nothing_is_nothing(self) -> None:
        assert top_eigenvalue(torch.zeros_like, torch.ones(3)) == 0.0

    def test_of_units_are_those_of_torchs_hessian_of_free_units_only(self) -> None:
        context = smooth_subject()
        found = layer_eigenvalues(context, tolerance=1e-6, iterations=300)
        assert list(found) == ["0", "2"]
        for name, value in found.items():
            expected = torch.linalg.eigvalsh(full_hessian(context, name).double()).abs().max()
            assert value == pytest.approx(float(expected), rel=1e-3)

    def test_look_at_the_first_images_alone(self) -> None:
        context, data = smooth_subject(), smooth_subject().data
        first = ScoringContext(context.walk, ImageSet(data.images[:4], data.targets[:4]))
        assert layer_eigenvalues(context, images=4) == layer_eigenvalues(first)
        assert layer_eigenvalues(context, images=4) != layer_eigenvalues(context)

    def test_that_are_not_finite_are_refused_with_the_unit(self) -> None:
        context = smooth_subject()
        context.data.images[0] = np.nan
        with pytest.raises(EvaluationError, match="unit '0' is not finite"):
            layer_eigenvalues(context)


class TestEveryCriterion:
    @pytest.mark.parametrize("name", ALL)
    def test_scores_all_channels_of_all_units(self, name: str) -> None:
        walk = toy_walk(small(name))
        scores = score_channels(name, ScoringContext(walk, image_set(4)))
        assert {unit.name: (unit.channels,) for unit in walk.units} == {
            unit: values.shape for unit, values in scores.items()
        }
        assert all(values.dtype == np.float64 and (values >= 0).all() and values.any() for values in scores.values())

    @pytest.mark.parametrize("name", [name for name in ALL if not name.endswith("_block")])
    def test_takes_grouped_and_depthwise_layers(self, name: str) -> None:
        net = body(
            lambda net, x: net.p(torch.relu(net.d(net.g(x)))),
            4,
            4,
            g=conv(4, 4, groups=2),
            d=conv(4, 4, groups=4),
            p=conv(4, 4, 1),
        )
        images = small_images(4)
        scores = score_channels(name, ScoringContext(LayerWalk.trace(net.eval(), images[:1]), labelled(images)))
        assert all((values >= 0).all() and values.any() for values in scores.values())

    @pytest.mark.parametrize("name", ["lobs", "lobs_diagonal", "lobs_block", "fisher", "empirical_fisher"])
    def test_adds_the_members_of_a_coupled_unit(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, np.ndarray] = {}
        summed = ScoringContext.summed
        monkeypatch.setattr(ScoringContext, "summed", lambda self, values: given.update(values) or summed(self, values))
        found = score_channels(name, ScoringContext(toy_walk(), image_set(4)))["up"]
        members = [given[part] for part in ("up", "project", "out")]
        assert all((values > 0).any() for values in members)
        assert found == pytest.approx(sum(members))

    @pytest.mark.parametrize("name", ALL)
    def test_does_not_see_a_scale_that_a_batch_norm_takes_out(self, name: str) -> None:
        data = image_set(4)
        plain, scaled = small(name), small(name)
        with torch.no_grad():
            for layer, norm, scale in ((scaled.stem, scaled.stem_bn, 5.0), (scaled.down, scaled.down_bn, 0.1)):
                layer.weight.mul_(scale)
                norm.running_mean.mul_(scale)
                norm.running_var.copy_(scale**2 * (norm.running_var + norm.eps) - norm.eps)
        once, again = (score_channels(name, ScoringContext(toy_walk(model), data)) for model in (plain, scaled))
        for unit in once:
            assert again[unit] == pytest.approx(once[unit], rel=2e-3, abs=1e-9), unit

    @pytest.mark.parametrize("name", ALL)
    def test_is_settled_by_the_seed(self, name: str) -> None:
        walk, data = toy_walk(small(name)), image_set(4)
        one, same, other = (score_channels(name, ScoringContext(walk, data, seed))["up"] for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert np.array_equal(one, other) is (name not in RANDOM)

    @pytest.mark.parametrize("name", ALL)
    def test_refuses_images_that_are_not_finite(self, name: str) -> None:
        images = torch.randn(4, COLOURS, 8, 8, generator=generator())
        images[2, 0, 0, 0] = np.inf
        with pytest.raises(UserError, match="not finite"):
            score_channels(name, ScoringContext(toy_walk(small(name)), labelled(images)))

    @pytest.mark.parametrize("name", ALL)
    def test_without_images_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="needs images"):
            score_channels(name, ScoringContext(toy_walk(small(name))))

    @pytest.mark.parametrize("name", ALL)
    def test_works_where_gradients_are_off_and_leaves_the_network_alone(self, name: str) -> None:
        model = small(name)
        walk, data = toy_walk(model), image_set(4)
        expected = score_channels(name, ScoringContext(walk, data))["up"]
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            assert np.array_equal(score_channels(name, ScoringContext(walk, data))["up"], expected)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
