"""Least squares: weights fitted so that outputs stay near the dense ones."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import digits_config, image_set, toy_resnet, toy_walk, trained_digits
from zoo import body, conv, small_images

from prune_env import LayerWalk, PruningPlan
from prune_env.criteria.patch_covariance import patches
from prune_env.env.builders import make_repair
from prune_env.env.loading import load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import apply_plan
from prune_env.repair.least_squares import LeastSquares

TINY = 1e-5


def repair(model: nn.Module, images: Tensor, ridge: float = TINY, normed: tuple[str, ...] = ()) -> LeastSquares:
    labels = torch.zeros(len(images), dtype=torch.int64)
    names = [name for name, _ in model.named_modules() if name]
    return LeastSquares(model, names, zip(images.split(16), labels.split(16), strict=True), normed, ridge)


def read_by(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """The inputs of each call of a layer."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def chain(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5))


def images_of(count: int = 48) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
def test_fitted_weights_are_those_of_a_regression_on_the_samples(bias: bool) -> None:
    model, images, kept = chain(bias), images_of(), [0, 2, 3, 7]
    read = read_by(model, "2", images)
    rows = patches(model[2], read).permute(0, 3, 1, 2).flatten(0, 1).squeeze(1).double()
    wanted = model[2](read).movedim(1, -1).flatten(0, -2).double().detach()
    chosen = np.concatenate([np.arange(9) + 9 * channel for channel in kept])
    known = rows[:, chosen]
    if bias:
        known = torch.cat([known, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
    expected = torch.linalg.lstsq(known, wanted).solution.T
    found = repair(model, images).tensors("2", {"in": np.array(kept)})
    weights = expected[:, :-1] if bias else expected
    torch.testing.assert_close(found["weight"].flatten(1).double(), weights, rtol=1e-3, atol=1e-4)
    if bias:
        torch.testing.assert_close(found["bias"].double(), expected[:, -1], rtol=1e-3, atol=1e-3)
    else:
        assert set(found) == {"weight"}


def test_a_channel_that_is_a_sum_of_others_is_not_missed() -> None:
    torch.manual_seed(0)
    # No activation, so that a sum stays a sum; no padding, because its zeros would interrupt a constant.
    model = nn.Sequential(conv(3, 8), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1)).eval()
    with torch.no_grad():
        model[0].weight[3] = model[0].weight[0] - 2.0 * model[0].weight[5]
        model[0].bias[3] = model[0].bias[0] - 2.0 * model[0].bias[5] + 0.3
    images = images_of()
    walk = LayerWalk.trace(model, images[:1])
    plan = walk.plan({"0": 7}, {"0": np.array([1.0, 1, 1, 0, 1, 1, 1, 1])})
    with torch.no_grad():
        dense, sliced = model(images), plan.apply(model)(images)
        fitted = apply_plan(plan, model, repair(model, images))(images)
    assert (dense - fitted).abs().max() < 1e-3 * (dense - sliced).abs().max()


def test_a_linear_layer_behind_a_flatten_is_fitted_in_whole_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 6), nn.Flatten(), nn.Linear(6 * 64, 5)).eval()
    with torch.no_grad():
        model[0].weight[4] = 3.0 * model[0].weight[1]
        model[0].bias[4] = -model[0].bias[1]
    images = images_of(600)
    plan = LayerWalk.trace(model, images[:1]).plan({"0": 5}, {"0": np.array([1.0, 1, 1, 1, 0, 1])})
    with torch.no_grad():
        found = apply_plan(plan, model, repair(model, images))(images)
    torch.testing.assert_close(found, model(images), rtol=1e-2, atol=1e-2)


def test_each_group_of_a_grouped_convolution_is_fitted_on_what_it_reads() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4, bias=True)).eval()
    images = small_images(64)
    kept = np.array([0, 2, 4, 6])
    found = repair(net, images).tensors("g", {"in": kept})
    read = read_by(net, "g", images)
    rows = patches(net.g, read)
    for group in range(4):
        own = slice(3 * group, 3 * group + 3)
        known = rows[:, group, :9].transpose(1, 2).flatten(0, 1).double()
        known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], dim=1)
        wanted = net.g(read)[:, own].movedim(1, -1).flatten(0, -2).double().detach()
        expected = torch.linalg.lstsq(known, wanted).solution.T
        torch.testing.assert_close(found["weight"][own].flatten(1).double(), expected[:, :-1], rtol=1e-3, atol=1e-4)


def test_a_strong_ridge_leaves_the_sliced_weights() -> None:
    model, images = chain(), images_of()
    found = repair(model, images, 1e9).tensors("2", {"in": np.array([1, 4]), "out": np.array([0, 5])})
    torch.testing.assert_close(found["weight"], model[2].weight.detach()[[0, 5]][:, [1, 4]], rtol=1e-4, atol=1e-6)


def test_rows_that_are_cut_too_are_left_out_and_the_others_unchanged_by_that() -> None:
    model, images = chain(), images_of()
    fit = repair(model, images)
    alone = fit.tensors("2", {"in": np.array([1, 4])})
    both = fit.tensors("2", {"in": np.array([1, 4]), "out": np.array([0, 5])})
    for key in ("weight", "bias"):
        torch.testing.assert_close(both[key], alone[key][[0, 5]])


@pytest.mark.parametrize("sides", [{}, {"out": np.array([0, 1])}])
def test_a_layer_that_reads_everything_is_left_alone(sides: dict[str, np.ndarray]) -> None:
    model = chain()
    assert repair(model, images_of()).tensors("2", sides) == {}


def test_a_depthwise_layer_is_left_alone() -> None:
    net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1))
    fit = repair(net, small_images(8))
    assert fit.tensors("d", {"in": np.array([0, 1]), "out": np.array([0, 1])}) == {}
    assert fit.tensors("p", {"in": np.array([0, 1])}) != {}


def test_under_a_batch_norm_only_what_varies_is_fitted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6, bias=False), nn.BatchNorm2d(6)).eval()
    with torch.no_grad():
        model[0].bias += 5.0
    images = images_of()
    kept = {"in": np.arange(5)}
    read = read_by(model, "2", images)
    rows = patches(model[2], read).squeeze(1).transpose(1, 2).flatten(0, 1).double()
    dense = rows @ model[2].weight.detach().flatten(1).double().T

    def varying(fit: LeastSquares) -> float:
        left = dense - rows[:, :45] @ fit.tensors("2", kept)["weight"].flatten(1).double().T
        return float(left.var(dim=0).sum())

    assert varying(repair(model, images, normed=("2",))) < varying(repair(model, images))


def test_the_evaluator_and_a_network_of_its_own_are_repaired_alike() -> None:
    model = toy_resnet()
    walk = toy_walk(model)
    reward, calibration = image_set(64, 1), image_set(64, 2)
    batches = [(calibration.images, calibration.targets)]
    fit = LeastSquares(model, [name for name, _ in model.named_modules() if name], batches)
    evaluator = Evaluator(walk, reward, calibration, ExecutionSettings(batch=32, folded=False), repair=fit)
    plain = Evaluator(walk, reward, calibration, ExecutionSettings(batch=32, folded=False))
    plan = walk.plan({"stem": 4, "mid": 9})
    with torch.no_grad():
        ranked = evaluator.ready(plan)(reward.images)
        result = evaluator.pruned(plan)(reward.images)
        unrepaired = plain.pruned(plan)(reward.images)
    torch.testing.assert_close(ranked, result, rtol=1e-4, atol=1e-4)
    assert (result - unrepaired).abs().max() > 1e-2
    assert evaluator.dense() == plain.dense()


def test_outputs_stay_nearer_to_the_dense_network_than_sliced_ones() -> None:
    model = toy_resnet()
    walk = toy_walk(model)
    images = image_set(256, 3).images
    plan: PruningPlan = walk.plan({"stem": 6, "down": 8, "mid": 16})
    with torch.no_grad():
        dense = model(images)
        sliced = (plan.apply(model)(images) - dense).square().mean()
        fitted = (apply_plan(plan, model, repair(model, images, 1e-3))(images) - dense).square().mean()
    assert fitted < 0.7 * sliced


@pytest.mark.parametrize("mean", [30.0, 300.0])
def test_inputs_far_from_zero_are_fitted_as_well_as_others(mean: float) -> None:
    model, images = chain(), images_of()
    near = repair(model, images).tensors("2", {"in": np.arange(4)})["weight"]
    with torch.no_grad():
        model[1] = nn.Sequential(nn.ReLU(), Shift(mean))
        model[2].padding_mode = "replicate"
    far = repair(model, images).tensors("2", {"in": np.arange(4)})["weight"]
    assert far.isfinite().all()
    assert far.abs().max() < 3.0 * near.abs().max()


class Shift(nn.Module):
    """Adds a constant to every channel."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.mean


@pytest.mark.parametrize("kept", [[0], [1, 4], [0, 2, 3, 5, 6]])
@pytest.mark.parametrize("ridge", [1e-5, 1e-3, 1e-1, 10.0])
def test_no_fit_is_farther_from_the_dense_layer_than_the_slice(kept: list[int], ridge: float) -> None:
    model, images = chain(), images_of()
    read = read_by(model, "2", images)
    with torch.no_grad():
        dense = model[2](read)
        sliced = torch.nn.functional.conv2d(read[:, kept], model[2].weight[:, kept], model[2].bias, padding=1)
        found = repair(model, images, ridge).tensors("2", {"in": np.array(kept)})
        fitted = torch.nn.functional.conv2d(read[:, kept], found["weight"], found["bias"], padding=1)
    assert (fitted - dense).square().mean() <= (sliced - dense).square().mean()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_repaired_tensors_have_the_type_of_the_layer_they_are_for(kind: torch.dtype) -> None:
    model, images = chain(), images_of()
    walk = LayerWalk.trace(model, images[:1])
    fit = repair(model, images)
    small = apply_plan(walk.plan({"0": 5}), chain().to(kind), fit)
    assert {parameter.dtype for parameter in small.parameters()} == {kind}


def test_repaired_tensors_are_on_the_device_of_the_layer_they_are_for() -> None:
    model, images = chain(), images_of()
    walk = LayerWalk.trace(model, images[:1])
    small = apply_plan(walk.plan({"0": 5}), chain().to("meta"), repair(model, images))
    assert {parameter.device.type for parameter in small.parameters()} == {"meta"}


def test_the_fit_is_the_same_whatever_batch_plans_are_ranked_in() -> None:
    repairs = []
    for batch in ("null", "16"):
        config = digits_config("repair.name=least_squares", f"execution.batch={batch}")
        splits = load_splits(config)
        walk = LayerWalk.trace(trained_digits(), splits.reward().images[:1])
        repairs.append(make_repair(config, splits, walk))
    name, width = "layer1.0.conv2", np.arange(5)
    one, other = (found.tensors(name, {"in": width})["weight"] for found in repairs if found is not None)
    assert torch.equal(one, other)
