"""Image files as pictures of 8 bits a channel; what they would cost is known before anything is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, UnidentifiedImageError

from prune_env.common.errors import DataError, first_line

FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Formats that are read. The file's name does not count, and other formats may run programs: Ghostscript for EPS."""

MOST_PIXELS = 60_000_000
"""Largest image [our choice]: that of a camera. Reading takes 500 MB at most: 8 bytes a pixel, and 16 for WEBP, of
which half as many pixels are allowed."""

LONGEST_SIDE = MOST_PIXELS
"""Longest side that an annotation may give an image: that of an image of one row or one column."""

LARGE = MOST_PIXELS // 8
"""Images of more pixels are read one at a time, whatever the number of threads [our choice]."""

_BAND = 1_000_000

_opening, _reading_large = Lock(), Lock()


@contextmanager
def opened_image(path: str | Path, data_set: str) -> Iterator[Image.Image]:
    """Opens an image file; within, it may be decoded and resized.

    While a large image is open, other large ones wait.

    Args:
        path: The file.
        data_set: The data set's name, for messages.

    Yields:
        The image; nothing is decoded yet.

    Raises:
        DataError: If the file is damaged, too large, or of another format than `FORMATS`.
    """
    try:
        with _opened(path) as picture, _reading_large if _is_large(picture) else nullcontext():
            yield picture
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        raise DataError(f"data set {data_set!r}: {path} cannot be read as an image: {_problem(error)}") from error


def rgb_of(picture: Image.Image, enough: tuple[int, int]) -> Image.Image:
    """Decodes an image of `opened_image` as RGB.

    16 bits of grey become 8: the upper byte. Pillow would clip them, and all but the darkest greys would be white.

    Args:
        picture: The image.
        enough: Width and height in pixels that its user shows; a large JPEG file is decoded at half, a quarter or an
            eighth of its size if that is still twice as large.

    Raises:
        ValueError: If the image holds numbers without a known largest value.
    """
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are {'whole numbers' if picture.mode == 'I' else 'floats'} of 32 bits, and nobody says which "
            "of them is white; save it with 8 or 16 bits"
        )
    if _is_large(picture):
        picture.draft(None, (2 * enough[0], 2 * enough[1]))
    picture.load()
    if picture.mode.startswith("I;16"):
        return _upper_bytes(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # a copy would take the memory twice


def size_of(path: Path) -> tuple[int, int]:
    """Reads the height and width of an image file, in pixels; decodes nothing.

    Raises:
        ValueError: If the file is damaged, too large, or of another format than `FORMATS`.
    """
    try:
        with _opened(path) as picture:
            return picture.height, picture.width
    except Exception as error:  # as for `opened_image`
        raise ValueError(f"{path.name} cannot be read as an image: {_problem(error)}") from error


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    with _opening:
        # Pillow's own limit is larger, and its warning has a line of code: the limit here refuses in words.
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            picture = Image.open(path, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = usual
    with picture:
        if picture.width * picture.height > (most := _share_of(MOST_PIXELS, picture)):
            raise ValueError(
                f"it has {picture.height}x{picture.width} pixels; allowed are {most:,} in all; make it smaller"
            )
        yield picture


def _is_large(picture: Image.Image) -> bool:
    return picture.width * picture.height > _share_of(LARGE, picture)


def _share_of(pixels: int, picture: Image.Image) -> int:
    """As many pixels as an image may have that takes the memory of this many of another format."""
    return pixels // 2 if picture.format == "WEBP" else pixels


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is damaged, or of another format than {', '.join(FORMATS)}; save it as one of these"
    return first_line(error)


def _upper_bytes(picture: Image.Image) -> Image.Image:
    """An image of 16 bits of grey as RGB, some rows at a time, because numpy's copies take as much as the image."""
    grey = Image.new("RGB", picture.size)
    rows = max(1, _BAND // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        grey.paste(Image.fromarray((np.asarray(band) >> 8).astype(np.uint8)).convert("RGB"), (0, top))
    return grey
