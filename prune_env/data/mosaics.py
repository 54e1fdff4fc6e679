"""Reader of folders that hold a data set as lossless mosaics, checked by SHA-256.

``meta.json`` gives the tile size, the tiles on a side of each mosaic, the class names and, for each split,
the number of images and the SHA-256 of their bytes; ``train_*.webp`` and ``test_*.webp`` hold the tiles row
by row. Image k is of class k modulo the number of classes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prune_env.common.errors import DataError
from prune_env.data.arrays import LabelledArrays
from prune_env.data.source import Split


@dataclass(frozen=True)
class MosaicLayout:
    """How a folder's mosaics are cut: tile side in pixels, tiles on a mosaic's side, number of classes."""

    tile: int
    grid: int
    classes: int


def read_mosaics(folder: Path) -> tuple[LabelledArrays, LabelledArrays]:
    """Read the training and the test split of a folder.

    Args:
        folder: Holds ``meta.json`` and the mosaics.

    Returns:
        The training split and the test split.

    Raises:
        DataError: If a file is missing or damaged, or the decoded bytes differ from the recorded SHA-256.
    """
    # Damage shows in many ways: JSON, missing keys, image decoding, shapes that do not divide.
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        layout = MosaicLayout(int(meta["tile"]), int(meta["grid"]), len(meta["classes"]))
        return _read_split(folder, "train", meta, layout), _read_split(folder, "test", meta, layout)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"the mosaics in {folder} are damaged or incomplete ({type(error).__name__}: {error}); "
            "copy the folder again"
        ) from error


def _read_split(folder: Path, split: Split, meta: dict[str, Any], layout: MosaicLayout) -> LabelledArrays:
    tiles = [_cut(mosaic, layout) for mosaic in sorted(folder.glob(f"{split}_*.webp"))]
    images = np.concatenate(tiles)[: int(meta[split]["n"])]
    if hashlib.sha256(images.tobytes()).hexdigest() != meta[split]["sha256_nhwc"]:
        raise DataError(
            f"the mosaics {split}_*.webp in {folder} are damaged: the decoded images differ from the SHA-256 "
            "recorded in meta.json; copy the folder again"
        )
    labels = np.arange(len(images)) % layout.classes
    return LabelledArrays.from_arrays(images, labels, f"{folder}, {split}")


def _cut(mosaic: Path, layout: MosaicLayout) -> NDArray[np.uint8]:
    """The tiles of one mosaic, row by row, uint8 [grid * grid, tile, tile, 3]."""
    with Image.open(mosaic) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    tile, grid = layout.tile, layout.grid
    rows = pixels.reshape(grid, tile, grid, tile, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(grid * grid, tile, tile, 3)
