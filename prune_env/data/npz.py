"""Reader of ``.npz`` files in MedMNIST's layout; arrays of objects are never unpickled."""

from pathlib import Path

import numpy as np

from prune_env.common.errors import DataError
from prune_env.data.arrays import LabelledArrays

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
    # numpy raises many kinds of errors on damaged files, among them those of zipfile and zlib.
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = set(file.files)
            test = "test" if "test_images" in keys else "val"
            wanted = ("train_images", "train_labels", f"{test}_images", f"{test}_labels")
            arrays = {key: file[key] for key in wanted if key in keys}
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
