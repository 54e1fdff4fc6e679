"""Granularities: the shape that is cut. Importing this package registers the granularities of the library."""

from prune_env.granularity.actions import ActionDimension
from prune_env.granularity.base import (
    Granularity,
    GranularityContext,
    GranularityMeasurements,
    TextTable,
    Trainable,
    make_granularity,
    register_granularity,
)
from prune_env.granularity.builder import PlanBuilder
from prune_env.granularity.channel import Channel
from prune_env.granularity.group import Group
from prune_env.granularity.stripe import Stripe

__all__ = [
    "ActionDimension",
    "Channel",
    "Granularity",
    "GranularityContext",
    "GranularityMeasurements",
    "Group",
    "PlanBuilder",
    "Stripe",
    "TextTable",
    "Trainable",
    "make_granularity",
    "register_granularity",
]
