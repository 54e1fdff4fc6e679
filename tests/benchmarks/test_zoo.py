"""The table of walked networks: its rows, and the judgement of what Torch-Pruning cuts."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from zoo import chain, small_images

from benchmarks import zoo
from benchmarks.zoo import ZOO, differing_layer, measure, printed, with_places_for_weights, with_weights
from prune_env import LayerWalk
from prune_env.walk.example import Example


def test_the_networks_are_many_and_named_once() -> None:
    names = [name for names in ZOO.values() for name in names]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


def test_a_row_says_what_the_walk_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "build", lambda _name: (chain().eval(), small_images()))
    row = measure("chain")
    assert (row["free"], row["units"], row["exact"]) == (2, 3, "yes")
    assert row["reach"] == pytest.approx(LayerWalk.trace(chain(), small_images()).reach())
    assert printed(row | {"seconds": 1.0}) == f"| chain | 1.00 | 2 of 3 | {row['reach']:.1%} | yes | 0.0% |  |"
    assert printed({"network": "chain", "error": "does not end"}) == "| chain | does not end | | | | | |"


def cut(model: nn.Module, outs: list[int], norm: list[int], ins: list[int]) -> nn.Module:
    """A tagged copy of `chain` whose first convolution, its batch norm and the next convolution keep some channels."""
    tagged = copy.deepcopy(model)
    first, second, reader = tagged[0], tagged[1], tagged[3]
    first.weight.data, first.out_channels = first.weight.data[outs], len(outs)
    if first.bias is not None:
        first.bias.data = first.bias.data[outs]
    for key in ("weight", "bias", "running_mean", "running_var"):
        getattr(second, key).data = getattr(second, key).data[norm]
    second.num_features = len(norm)
    reader.weight.data, reader.in_channels = reader.weight.data[:, ins], len(ins)
    return tagged


@pytest.mark.parametrize(("norm", "right"), [([0, 2, 5], True), ([0, 2, 6], False)])
def test_a_cut_of_other_channels_than_its_readers_lose_is_judged_wrong(norm: list[int], right: bool) -> None:
    model, example = chain().eval(), Example.given(small_images())
    tagged = cut(with_places_for_weights(model), [0, 2, 5], norm, [0, 2, 5])
    small, removed = with_weights(tagged, model)
    np.testing.assert_array_equal(removed["0", "out"], [1, 3, 4, 6, 7])
    np.testing.assert_array_equal(removed["3", "in"], [1, 3, 4, 6, 7])
    assert torch.equal(small[0].weight, model[0].weight[[0, 2, 5]])
    assert (differing_layer(model, small, example, removed) is None) == right
