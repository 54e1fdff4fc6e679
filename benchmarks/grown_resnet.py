"""A deeper CIFAR ResNet from a trained one: `python -m benchmarks.grown_resnet MODEL WEIGHTS DEEPER OUT`.

A residual block whose last batch norm has the weight 0 is the identity, because its input is not negative. So the
deeper network starts as the trained one: each stage holds the trained blocks with identity blocks between them. It
needs only a short training to use its depth:

    python -m benchmarks.grown_resnet cifar_resnet56 resnet56.safetensors cifar_resnet110 start.safetensors
    prune-env pretrain configs/cifar10_resnet110.yaml model.weights=start.safetensors run.directory=runs/resnet110
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from prune_env.models import build_model, load_weights, save_weights
from prune_env.models.basic_block import BasicBlock

STAGES = ("layer1", "layer2", "layer3")


def grow(shallow: nn.Module, deep: nn.Module) -> None:
    """Makes a deeper network compute what a shallower one computes, in place.

    Args:
        shallow: A trained CIFAR ResNet.
        deep: An untrained one of the same family with at least as many blocks in each stage.

    Raises:
        ValueError: If a stage of the deeper network has fewer blocks.
    """
    names = {name for name, _ in deep.named_children()} - set(STAGES)
    for name in names:
        deep.get_submodule(name).load_state_dict(shallow.get_submodule(name).state_dict())
    for stage in STAGES:
        _grow_stage(list(shallow.get_submodule(stage).children()), list(deep.get_submodule(stage).children()))


def _grow_stage(trained: Sequence[nn.Module], blocks: Sequence[nn.Module]) -> None:
    """Spreads the trained blocks evenly over a stage, the first one first, and makes the others identities."""
    if len(blocks) < len(trained):
        raise ValueError(f"the deeper network has stages of {len(blocks)} blocks, the trained one of {len(trained)}")
    places = [number * len(blocks) // len(trained) for number in range(len(trained))]
    for number, block in enumerate(blocks):
        assert isinstance(block, BasicBlock)
        if number in places:
            block.load_state_dict(trained[places.index(number)].state_dict())
        else:
            with torch.no_grad():
                block.bn2.weight.zero_()
                block.bn2.bias.zero_()


def main(arguments: list[str]) -> None:
    """Reads the weights, grows the network and writes its weights."""
    name, weights, deeper, out = arguments
    torch.manual_seed(0)
    shallow, deep = build_model(name, 10, 3), build_model(deeper, 10, 3)
    load_weights(shallow, Path(weights))
    grow(shallow, deep)
    save_weights(deep, Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])
