"""Torch-Pruning must cut the channels that a plan cuts; otherwise the comparison of times would be meaningless."""

import json
from pathlib import Path

import pytest
import torch
from toy import TASK, digits_config, image_set, toy_resnet

from benchmarks.torch_pruning_baseline import (
    TorchPruningBaseline,
    compare_with_torch_pruning,
    prune_with_torch_pruning,
    removed_channels,
)
from prune_env.common.errors import EvaluationError
from prune_env.models import build_model
from prune_env.walk import LayerWalk

STREAMS = dict.fromkeys(("conv1", "layer2.0.conv2", "layer3.0.conv2"), "kept")


@pytest.mark.parametrize(("name", "protect"), [("cifar_resnet20", STREAMS), ("mobilenet_v2", {}), ("resnet18", {})])
def test_the_baseline_cuts_the_network_that_the_plan_makes(name, protect):
    torch.manual_seed(0)
    model, images = build_model(name, 10).eval(), torch.randn(2, 3, 64, 64)
    walk = LayerWalk.trace(model, images, protect)
    plan = walk.plan({unit.name: max(1, unit.channels // 2) for unit in walk.free})
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain, ours = prune_with_torch_pruning(model, images[:1], removed_channels(walk.free, plan)), plan.apply(model)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), ours(images), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in plain.parameters()) == plan.costs.params < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


GIVEN = ["execution.layout=channels_last", "execution.dtype=float32", "execution.folded=true", "execution.batch=64"]


@pytest.mark.slow
def test_the_command_prints_the_seconds_of_both_and_their_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digits.yaml").write_text(digits_config("pretrain.epochs=0", *GIVEN).dump_yaml())
    compare_with_torch_pruning(tmp_path / "digits.yaml", rounds=2, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["plans"] == 2
    assert found["evaluation_s"] > 0
    assert found["baseline_s"] > 0
    assert found["baseline_over_ours"] > 0


@pytest.mark.slow
def test_a_network_that_torch_pruning_cannot_cut_is_told() -> None:
    images = image_set(4)
    with (
        TorchPruningBaseline(toy_resnet(), images, images, torch.device("cpu"), TASK) as baseline,
        pytest.raises(EvaluationError, match=r"Torch-Pruning cannot cut this network .*no attribute .nowhere"),
    ):
        baseline.seconds({"nowhere": [0]})
