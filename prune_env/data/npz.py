"""Reader of ``.npz`` files in MedMNIST's layout; arrays of objects are never unpickled."""

import zipfile
from pathlib import Path

import numpy as np

from prune_env.common.errors import DataError
from prune_env.data.arrays import LabelledArrays

GROWTH, FREE_GROWTH = 100, 64_000_000
"""Largest growth of a compressed file when it is read [our choice]: by this factor, and by these bytes in any case."""

LAYOUT = "an .npz file with uint8 train_images, train_labels and test_images, test_labels (or val_*)"


def read_npz(path: Path) -> tuple[LabelledArrays, LabelledArrays]:
    """Read the training and the test split of a file.

    Args:
        path: The file. ``test_*`` is the test split. A file without ``test_*`` gives ``val_*`` as the test
            split; otherwise ``val_*`` is ignored.

    Returns:
        The training split and the test split.

    Raises:
        DataError: If the file is damaged, lacks an array, or an array has another type or shape.
    """
    _refuse_bomb(path)
    # numpy raises many kinds of errors on damaged files, among them those of zipfile and zlib.
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = set(file.files)
            test = "test" if "test_images" in keys else "val"
            wanted = ("train_images", "train_labels", f"{test}_images", f"{test}_labels")
            arrays = {key: file[key] for key in wanted if key in keys}
            if any(not isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a part is no array")  # numpy gives its bytes
    except Exception as error:
        raise DataError(
            f"{path} was refused: it is damaged, or not {LAYOUT}; arrays of objects are never unpickled"
        ) from error
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise DataError(f"{path}: {missing[0]!r} is missing; allowed: {LAYOUT}; the file has {sorted(keys)}")
    return (
        LabelledArrays.from_arrays(arrays["train_images"], arrays["train_labels"], f"{path}, train"),
        LabelledArrays.from_arrays(arrays[f"{test}_images"], arrays[f"{test}_labels"], f"{path}, {test}"),
    )


def _refuse_bomb(path: Path) -> None:
    """Refuses a file that would fill the memory; what a part says of its size is checked when it is read."""
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(member.file_size for member in file.infolist())
    except Exception:  # a damaged file is told by the reader
        return
    if size > GROWTH * path.stat().st_size + FREE_GROWTH:
        raise DataError(
            f"{path} was refused: {path.stat().st_size:,} bytes would become {size:,}; images do not compress by more "
            f"than {GROWTH}:1. If these do, save the file with numpy.savez, which does not compress"
        )
