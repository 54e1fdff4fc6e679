"""Types: arrays of channel indices, and the sides of a module."""

import numpy as np
import numpy.typing as npt

Side = str
"""``"in"``, ``"out"``, or the name of a module's own tensor or size attribute that holds channels."""


IntArray = npt.NDArray[np.int64]
