"""Image files as pictures of 8 bits a channel; what they would cost is known before anything is decoded."""

from pathlib import Path

import numpy as np
from PIL import Image

from prune_env.common.errors import DataError, first_line

MOST_PIXELS = 100_000_000
"""Largest image [our choice]: larger than any camera's, and 300 MB as decoded colours."""

LONGEST_SIDE = MOST_PIXELS
"""Longest side that an annotation may give an image: that of an image of one row or one column."""


def read_rgb(path: str | Path, data_set: str) -> Image.Image:
    """Reads an image file as RGB.

    16 bits of grey become 8: the upper byte. Pillow would clip them, and all but the darkest greys would be white.

    Args:
        path: The file.
        data_set: The data set's name, for messages.

    Raises:
        DataError: If the file is damaged, too large, or holds numbers without a known largest value.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if width * height <= MOST_PIXELS:
                return _eight_bits(opened).convert("RGB")
        problem = f"it has {height}x{width} pixels; allowed are {MOST_PIXELS:,} in all; make it smaller"
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        problem = first_line(error)
    raise DataError(f"data set {data_set!r}: {path} cannot be read as an image: {problem}")


def size_of(path: Path) -> tuple[int, int]:
    """Reads the height and width of an image file, in pixels; decodes nothing.

    Raises:
        ValueError: If the file is damaged or too large.
    """
    try:
        with Image.open(path) as opened:
            return opened.height, opened.width
    except Exception as error:  # as for `read_rgb`
        raise ValueError(f"{path.name} cannot be read as an image: {first_line(error)}") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are {'whole numbers' if picture.mode == 'I' else 'floats'} of 32 bits, and nobody says which "
            "of them is white; save it with 8 or 16 bits"
        )
    return picture
