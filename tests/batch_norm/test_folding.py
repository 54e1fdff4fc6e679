"""Folding is proved on every output of a network."""

import pytest
import torch
from torch import Tensor, nn
from zoo import Net

from prune_env.batch_norm.folding import FoldPair, find_fold_pairs


@pytest.mark.parametrize("also", [False, True])
def test_a_convolution_that_a_second_output_reads_is_not_folded(also: bool) -> None:
    def forward(net: Net, images: Tensor) -> tuple[Tensor, Tensor | None]:
        written = net.conv(images)
        return net.norm(written).mean((2, 3)), written if also else None

    model = Net(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)).eval()
    expected = () if also else (FoldPair("conv", "norm"),)
    assert find_fold_pairs(model, torch.randn(2, 3, 6, 6)) == expected
