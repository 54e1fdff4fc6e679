"""Types: arrays of channel indices, and the two sides of a module."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["in", "out"]


IntArray = npt.NDArray[np.int64]
