"""The folder of a training: which test images each network gets right."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prune_env.common.errors import RunError
from prune_env.common.records import to_file
from prune_env.common.tensor_records import to_tensor_file
from prune_env.data.splits import SplitsRecord
from prune_env.runs.training_folder import TrainingFolder


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    """A training with three test images."""
    made = TrainingFolder(tmp_path)
    record = SplitsRecord(source="digits", reward=[0], calibration=[1], test=[4, 5, 6], train_images=7)
    made.splits.write_bytes(to_file(record))
    return made


def test_the_right_images_are_read_as_they_were_written(folder: TrainingFolder) -> None:
    assert folder.read_right("fine-tuned") is None
    folder.right.write_bytes(to_tensor_file({}, {"fine-tuned": torch.tensor([True, False, True])}))
    found = folder.read_right("fine-tuned")
    assert found is not None
    assert found.tolist() == [True, False, True]
    assert folder.read_right("dense") is None
    # A file of an earlier release.
    save_file({"fine-tuned": torch.tensor([False, False, True])}, folder.right)
    assert folder.read_right("fine-tuned") is not None


@pytest.mark.parametrize(
    "tensor", [torch.ones(2).bool(), torch.ones(3), torch.ones(3, 1).bool()], ids=["fewer", "numbers", "a table"]
)
def test_what_is_no_truth_value_for_each_image_is_refused(tensor: Tensor, folder: TrainingFolder) -> None:
    folder.right.write_bytes(to_tensor_file({}, {"fine-tuned": tensor}))
    with pytest.raises(RunError, match=r"right\.safetensors' is damaged: 'fine-tuned' has not one truth value .* 3 "):
        folder.read_right("fine-tuned")


def test_a_damaged_file_is_told_by_its_name(folder: TrainingFolder) -> None:
    folder.right.write_bytes(to_tensor_file({}, {"fine-tuned": torch.ones(3).bool()})[:-1])
    with pytest.raises(RunError, match=r"right\.safetensors' cannot be read"):
        folder.read_right("fine-tuned")
