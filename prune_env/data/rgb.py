"""Pictures in any mode as 8-bit RGB."""

import numpy as np
from PIL import Image


def as_rgb(picture: Image.Image) -> Image.Image:
    """Returns a picture in 8-bit RGB; 16-bit values are scaled, where Pillow cuts them off at 255.

    Raises:
        ValueError: If the picture holds 32-bit numbers, whose range is unknown.
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("it holds 32-bit numbers, whose range is unknown; save it with 8 or 16 bits a channel")
    return picture.convert("RGB")
