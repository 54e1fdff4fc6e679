"""How far the layers rich in low-rank maps agree with HRank's published ranks for ResNet-56 on CIFAR-10."""

import pytest

from prune_env.config import RunConfig
from prune_env.env.builders import trace
from prune_env.env.loading import load_model, load_splits
from prune_env.protection.feature_ranks import feature_map_ranks
from prune_env.protection.sensitivity import find_sensitive_layers

HRANK = [18, 44, 46, 48, 50, 52, 54]
"""The convolutions, counted from 1, in which HRank's published ranks are low for more than half of the filters."""


def _module(number):
    """The name of a convolution of ResNet-56, counted from 1 in forward order."""
    block, second = divmod(number - 2, 2)
    stage, place = divmod(block, 9)
    return f"layer{stage + 1}.{place}.conv{second + 1}"


@pytest.mark.shared
def test_the_layers_richest_in_low_rank_maps_are_mostly_those_of_hrank(shared_data, shared_weights):
    config = RunConfig.from_mapping(
        {
            "model": {"name": "cifar_resnet56", "weights": str(shared_weights / "cifar10-resnet56.safetensors")},
            "data": {"name": "cifar10", "path": str(shared_data)},
        }
    )
    splits = load_splits(config)
    walk = trace(config, splits, load_model(config, splits))
    report = find_sensitive_layers(feature_map_ranks(walk, splits.calibration().images[:64]))
    richest = sorted(report.layers, key=lambda layer: -layer.low_rank_share)[: len(HRANK)]
    agreed = {layer.layer for layer in richest} & {_module(number) for number in HRANK}
    assert len(agreed) >= 5, sorted(agreed)
    assert report.sensitive.keys() <= {_module(number) for number in HRANK}
