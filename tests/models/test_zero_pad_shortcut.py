import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune_env.models import ZeroPadShortcut

KEPT_INPUTS = st.sets(st.integers(0, 5), min_size=1).map(sorted)
KEPT_OUTPUTS = st.sets(st.integers(0, 10), min_size=1).map(sorted)


def images() -> torch.Tensor:
    return torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))


def masked(x: torch.Tensor, kept: list[int]) -> torch.Tensor:
    mask = torch.zeros(x.shape[1])
    mask[kept] = 1.0
    return x * mask.view(1, -1, 1, 1)


@pytest.mark.parametrize(("inputs", "outputs", "before"), [(16, 32, 8), (6, 11, 2), (4, 4, 0)])
def test_dense_shortcut_pads_both_sides(inputs: int, outputs: int, before: int) -> None:
    x = torch.randn(2, inputs, 4, 4)
    expected = torch.zeros(2, outputs, 2, 2)
    expected[:, before : before + inputs] = x[:, :, ::2, ::2]
    assert torch.equal(ZeroPadShortcut(inputs, outputs, 2)(x), expected)


@given(inputs=KEPT_INPUTS, outputs=KEPT_OUTPUTS, inputs_first=st.booleans())
def test_cut_shortcut_equals_masked_dense(inputs: list[int], outputs: list[int], inputs_first: bool) -> None:
    x, cut = images(), ZeroPadShortcut(6, 11, 2)
    expected = ZeroPadShortcut(6, 11, 2)(masked(x, inputs))[:, outputs]
    if inputs_first:
        cut.keep_inputs(inputs)
        cut.keep_outputs(outputs)
    else:
        cut.keep_outputs(outputs)
        cut.keep_inputs(inputs)
    assert torch.equal(cut(x[:, inputs]), expected)
    assert (cut.in_channels, cut.out_channels) == (len(inputs), len(outputs))


def test_cutting_twice_equals_cutting_once() -> None:
    x, cut = images(), ZeroPadShortcut(6, 11, 1)
    cut.keep_inputs([0, 2, 3, 5])
    cut.keep_inputs([1, 3])
    assert torch.equal(cut(x[:, [2, 5]]), ZeroPadShortcut(6, 11, 1)(masked(x, [2, 5])))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_kept_channels_may_be_list_array_or_tensor(kind: type) -> None:
    cut = ZeroPadShortcut(6, 11, 1)
    cut.keep_inputs(kind([1, 4]))
    cut.keep_outputs(kind([0, 3, 6]))
    assert cut.source.tolist() == [2, 0, 1]


@pytest.mark.parametrize("kept", [[0, 0], [-1], [6]])
def test_repeated_or_out_of_range_channels_are_refused(kept: list[int]) -> None:
    with pytest.raises(ValueError, match=r"distinct and in 0\.\.5"):
        ZeroPadShortcut(6, 11, 1).keep_inputs(kept)


def test_shortcut_has_no_entry_in_the_state_dict() -> None:
    cut = ZeroPadShortcut(6, 11, 1)
    cut.keep_inputs([1, 2])
    assert not cut.state_dict()
    assert "source" in dict(cut.named_buffers())
