from pathlib import Path

import numpy as np
import pytest

from prune_env.common.errors import DataError
from prune_env.data import load_source


@pytest.mark.shared
def test_the_whole_cifar10_is_read(shared_data: Path) -> None:
    source = load_source("cifar10", shared_data)
    assert np.bincount(source.targets("train")).tolist() == [5000] * 10
    assert np.bincount(source.targets("test")).tolist() == [1000] * 10
    assert source.load("train", np.array([0, 49_999])).shape == (2, 3, 32, 32)


def test_a_folder_of_other_files_is_refused_with_what_it_may_hold(tmp_path: Path) -> None:
    (tmp_path / "train_00.webp").write_bytes(b"")
    with pytest.raises(DataError, match=r"does not hold it; allowed: an \.npz file.*a folder with cifar10\.npz"):
        load_source("cifar10", tmp_path)
