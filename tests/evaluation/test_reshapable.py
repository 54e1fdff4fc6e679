"""A reshapable network takes the shape of one plan after another and equals the network that each plan makes."""

import gc
import random

import pytest
import torch
from torch import nn

from prune_env.batch_norm.folding import find_fold_pairs
from prune_env.evaluation.reshapable import ReshapableNetwork
from prune_env.models import build_model
from prune_env.walk import LayerWalk

NETWORKS = {"cifar_resnet20": 32, "mobilenet_v2": 64, "regnet_y_400mf": 64, "densenet121": 64, "squeezenet1_1": 64}


def _network(name):
    torch.manual_seed(0)
    model = build_model(name, 10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, NETWORKS[name], NETWORKS[name])
    return model, images, LayerWalk.trace(model, images)


def _random_plan(walk, seed):
    draw = random.Random(seed)
    return walk.plan({unit.name: draw.randint(1, unit.channels) for unit in walk.free})


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "contiguous"])
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "kept"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_cut_equals_the_network_that_the_plan_makes(name, folded, layout):
    model, images, walk = _network(name)
    pairs = find_fold_pairs(model, images)
    assert bool(pairs) == any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    model, images = model.to(memory_format=layout), images.contiguous(memory_format=layout)
    reshapable = ReshapableNetwork(model, walk.units, pairs=pairs, folded=folded)
    for seed in range(3):
        plan = _random_plan(walk, seed)
        expected = plan.apply(model)(images)
        torch.testing.assert_close(reshapable.cut(plan.kept)(images), expected)
        reshapable.settle()
        torch.testing.assert_close(
            reshapable.model(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )
    torch.testing.assert_close(reshapable.cut({})(images), model(images), rtol=0, atol=0)


@torch.no_grad()
def test_statistics_measured_in_one_shape_do_not_reach_the_next():
    model, images, walk = _network("cifar_resnet20")
    reshapable = ReshapableNetwork(model, walk.units, pairs=find_fold_pairs(model, images))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reshapable.cut({}).train()(images + 3.0)
    reshapable.model.eval()
    reshapable.settle()
    plan = _random_plan(walk, 0)
    torch.testing.assert_close(reshapable.cut(plan.kept)(images), plan.apply(model)(images), rtol=0, atol=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.slow
@torch.no_grad()
def test_nothing_grows_with_the_number_of_cuts():
    model, images, walk = _network("regnet_y_400mf")
    reshapable = ReshapableNetwork(model, walk.units, pairs=find_fold_pairs(model, images))

    def cut(times):
        for seed in range(times):
            reshapable.cut(_random_plan(walk, seed).kept)
            reshapable.settle()
        gc.collect()
        return len(gc.get_objects())

    cut(2)
    assert cut(10) <= cut(2) + 20


@pytest.mark.parametrize("mean", [0.0, 0.7], ids=["fresh statistics", "others"])
def test_a_convolution_that_two_modules_read_is_not_folded(mean):
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.head(self.norm(y) + y)

    torch.manual_seed(0)
    model = Forked().eval()
    model.norm.running_mean.fill_(mean)
    assert find_fold_pairs(model, torch.randn(2, 3, 4, 4)) == ()


@torch.no_grad()
def test_a_reshapable_network_can_compute_in_bfloat16():
    model, images, walk = _network("cifar_resnet20")
    reshapable = ReshapableNetwork(model, walk.units, torch.bfloat16, find_fold_pairs(model, images))
    plan = _random_plan(walk, 1)
    reshapable.cut(plan.kept)
    reshapable.settle()
    found, expected = reshapable.model(images.bfloat16()).float(), plan.apply(model)(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert (found - expected).abs().max() > 0
