"""Copies of networks: as deep copies, also where Python cannot copy an attribute."""

import copy
import threading

import pytest
import torch
import torchvision
from torch import Tensor, nn

from prune_env.common.copying import copied


class Holding(nn.Module):
    """A network with a lock, a kept map with its graph, a list of sizes and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.again = self.conv
        self.lock = threading.Lock()
        self.sizes = [1, 2]
        self.kept: Tensor = self.conv(torch.ones(1, 1, 2, 2))


def test_a_copy_is_a_deep_copy() -> None:
    model = torchvision.models.mobilenet_v3_small(weights=None)
    ours, theirs = copied(model), copy.deepcopy(model)
    assert [(name, type(module)) for name, module in ours.named_modules()] == [
        (name, type(module)) for name, module in theirs.named_modules()
    ]
    for (name, tensor), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
        assert tensor.data_ptr() != model.state_dict()[name].data_ptr()
    for module, other in zip(ours.modules(), theirs.modules(), strict=True):
        assert vars(module).keys() == vars(other).keys()


def test_a_hook_on_the_copy_is_not_one_on_the_network() -> None:
    model = nn.Sequential(nn.ReLU())
    copied(model)[0].register_forward_hook(lambda *_: pytest.fail("the network's own module was hooked"))
    model(torch.ones(1))


def test_what_cannot_be_copied_is_shared_and_a_kept_map_loses_its_graph() -> None:
    model = Holding()
    small = copied(model)
    assert small.lock is model.lock
    assert small.kept.is_leaf
    assert torch.equal(small.kept, model.kept)
    assert small.again is small.conv
    assert small.sizes == [1, 2]
    assert small.sizes is not model.sizes


def test_objects_can_be_replaced() -> None:
    model, other = nn.Linear(2, 2), nn.Parameter(torch.zeros(1, 2))
    small = copied(model, {id(model.weight): other})
    assert small.weight is other
    assert small.bias is not model.bias


def test_a_module_with_a_copy_of_its_own_making_makes_it() -> None:
    class Own(nn.Module):
        def __deepcopy__(self, memo: dict[int, object]) -> "Own":
            del memo
            made = Own()
            made.made = True
            return made

    assert copied(nn.Sequential(Own()))[0].made
