"""A deeper ResNet that starts as a shallower one, and weights in half precision."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from zoo import randomise

from benchmarks import half_weights
from benchmarks.grown_resnet import grow, main
from prune_env.models import build_model, load_weights, save_weights

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def shallow() -> nn.Module:
    torch.manual_seed(1)
    return randomise(build_model("cifar_resnet20", 10, 3), 1).eval()


def test_a_grown_network_computes_the_same_and_can_learn_to_use_its_depth(shallow: nn.Module) -> None:
    deep = build_model("cifar_resnet44", 10, 3)
    grow(shallow, deep)
    with torch.no_grad():
        assert torch.allclose(deep.eval()(IMAGES), shallow(IMAGES), atol=1e-5)
    deep.train()(IMAGES).square().sum().backward()
    idle = [block.bn2 for stage in ("layer1", "layer2", "layer3") for block in deep.get_submodule(stage)]
    idle = [norm for norm in idle if not norm.weight.any()]
    assert len(idle) == 3 * (7 - 3)
    assert all(norm.weight.grad.any() for norm in idle)


def test_a_network_that_is_not_deeper_is_refused(shallow: nn.Module) -> None:
    with pytest.raises(ValueError, match="stages of 3 blocks, the trained one of 7"):
        grow(build_model("cifar_resnet44", 10, 3), shallow)


def test_the_commands_write_weights_that_are_read_again(shallow: nn.Module, tmp_path: Path) -> None:
    first, deeper, half = (tmp_path / f"{name}.safetensors" for name in ("shallow", "deep", "half"))
    save_weights(shallow, first)
    main(["cifar_resnet20", str(first), "cifar_resnet32", str(deeper)])
    half_weights.main([str(deeper), str(half)])
    assert {tensor.dtype for tensor in load_file(half).values()} == {
        torch.float16,
        torch.int64,
    }
    deep = build_model("cifar_resnet32", 10, 3)
    load_weights(deep, half)
    assert {parameter.dtype for parameter in deep.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.allclose(deep.eval()(IMAGES), shallow(IMAGES), rtol=0.02, atol=0.02 * shallow(IMAGES).abs().max())
