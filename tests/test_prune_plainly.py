"""The plain way must cut what a plan cuts, or timing it beside ours would say nothing."""

import pytest
import torch

from prune_env.models import build_model
from prune_env.walk import LayerWalk
from prune_env.walk.coupling import prune_plainly

STREAMS = dict.fromkeys(("conv1", "layer2.0.conv2", "layer3.0.conv2"), "kept")


@pytest.mark.parametrize(("name", "protect"), [("cifar_resnet20", STREAMS), ("mobilenet_v2", {}), ("resnet18", {})])
def test_cuts_the_network_that_the_plan_makes(name, protect):
    torch.manual_seed(0)
    model, images = build_model(name, 10).eval(), torch.randn(2, 3, 64, 64)
    walk = LayerWalk.trace(model, images, protect)
    plan = walk.plan({unit.name: max(1, unit.channels // 2) for unit in walk.free})
    removed = {}
    for unit in walk.free:
        own = next(member for member in unit.members if (member.module, member.side) == (unit.name, "out"))
        gone = sorted(set(range(unit.channels)) - set(plan.kept[unit.name]))
        removed[unit.name] = own.index[gone].ravel().tolist()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain, ours = prune_plainly(model, images[:1], removed), plan.apply(model)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), ours(images), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in plain.parameters()) == plan.costs.params < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
