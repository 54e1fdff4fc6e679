"""Which convolutions fall into groups, and what each group reads and computes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy import toy_walk
from zoo import traced

from prune_env.granularity.group.grouping import Grouping, nearest_count, share_out


def names(grouping: Grouping) -> list[list[str]]:
    return [[found.name for found in step] for step in grouping.by_step]


def test_a_convolution_is_decided_with_the_last_free_unit_that_it_touches() -> None:
    # Units: stem, down, up (the stream that project and out write too), mid.
    assert names(Grouping(toy_walk(), 8)) == [[], ["down"], ["up", "project"], ["mid", "out"]]
    protected = toy_walk(protect={"up": "why"})
    assert names(Grouping(protected, 8)) == [["project"], ["down", "up"], ["mid", "out"]]


def test_the_others_stay_whole_and_it_is_said_why() -> None:
    whole = Grouping(toy_walk(protect={"mid": "why"}), 8, untouched=["down"]).whole
    assert whole == {
        "stem": "it reads no unit's channels",
        "down": "it is protected",
        "fc": "it is a Linear and no nn.Conv2d",
    }
    everything = toy_walk(protect=dict.fromkeys(("stem", "up", "mid"), "why"))
    assert Grouping(everything, 8).whole["out"] == "all units that it touches are protected"
    assert Grouping(traced("resnext50_32x4d").walk, 8).whole["layer1.0.conv2"] == "it has 32 groups already"
    assert "groups already" in Grouping(traced("mobilenet_v2").walk, 8).whole["features.1.conv.0.0"]


def test_filters_are_reordered_only_where_all_that_reads_them_can_follow() -> None:
    found = {one.name: one.reorders for one in Grouping(toy_walk(), 8).convolutions}
    # up, project and out write one stream.
    assert found == {"down": True, "up": False, "project": False, "mid": True, "out": False}


@given(inputs=st.integers(1, 96), outputs=st.integers(1, 96), wanted=st.floats(1.0, 16.0))
def test_the_count_divides_and_none_that_divides_is_nearer(inputs: int, outputs: int, wanted: float) -> None:
    allowed = (1, 2, 3, 4, 6, 8)
    count = nearest_count(inputs, outputs, wanted, allowed)
    assert inputs % count == outputs % count == 0
    for other in allowed:
        if inputs % other == outputs % other == 0:
            assert abs(np.log(count / wanted)) <= abs(np.log(other / wanted))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.sampled_from((1, 2, 4)), size=st.integers(1, 5), inputs=st.integers(4, 12))
def test_filters_and_inputs_are_shared_out_so_that_more_of_the_scores_stays(
    seed: int, count: int, size: int, inputs: int
) -> None:
    scores = np.random.default_rng(seed).random((count * size, inputs))
    reads = max(1, inputs // count)
    kept = []
    for reorders in (False, True):
        filters, chosen = share_out(scores, count, reads, reorders)
        assert sorted(np.concatenate(filters).tolist()) == list(range(count * size))
        assert {len(own) for own in filters} == {size}
        assert {len(set(read.tolist())) for read in chosen} == {reads}
        kept.append(sum(scores[np.ix_(own, read)].sum() for own, read in zip(filters, chosen, strict=True)))
    assert kept[1] >= kept[0] - 1e-12


def test_filters_that_read_alike_come_into_one_group() -> None:
    scores = np.zeros((6, 6))
    for one in range(6):
        scores[one, :3] = one % 2 == 0
        scores[one, 3:] = one % 2 == 1
    # The order starts with two even filters, so that blocks of consecutive filters do not read alike.
    scores = scores[[0, 2, 1, 4, 3, 5]]
    filters, chosen = share_out(scores, 2, 3, reorders=True)
    assert [own.tolist() for own in filters] == [[0, 1, 3], [2, 4, 5]]
    assert [read.tolist() for read in chosen] == [[0, 1, 2], [3, 4, 5]]


def test_a_linear_layer_and_a_subclass_are_not_grouped() -> None:
    class Own(nn.Conv2d):
        pass

    torch.manual_seed(0)
    walk = toy_walk(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), Own(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    assert Grouping(walk, 8).whole["2"] == "it is a Own and no nn.Conv2d"


@pytest.mark.parametrize("most", [1, 3])
def test_the_largest_count_is_kept(most: int) -> None:
    assert all(max(found.counts) <= most for found in Grouping(toy_walk(), most).convolutions)
