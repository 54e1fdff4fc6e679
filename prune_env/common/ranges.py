"""Ranges of the numbers in records: what a report or a resumed run computes with them cannot overflow."""

from typing import Annotated

from pydantic import Field

MOST = 2**62
"""Largest count [our choice]: it fits into 64 bits, and a float holds its size."""

LONGEST = 1e12
"""Longest time [our choice], in seconds or milliseconds: 30 years at least."""

Quality = Annotated[float, Field(ge=0, le=1)]
"""A quality of a network."""

Share = Annotated[float, Field(gt=0, le=1)]
"""The share of a cost that remains."""

Count = Annotated[int, Field(ge=1, le=MOST)]
"""A number of things, of which there is one at least."""

CountFromZero = Annotated[int, Field(ge=0, le=MOST)]
"""A number of things, also 0."""

Duration = Annotated[float, Field(ge=0, le=LONGEST)]
"""A time that may be rounded to 0."""

Latency = Annotated[float, Field(gt=0, le=LONGEST)]
"""A time that others are divided by."""
