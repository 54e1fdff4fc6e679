"""The granularity's section: which shape is cut, and the settings that the named granularity has of its own."""

from typing import Any, Literal

from pydantic import Field

from prune_env.common.registry import Registry
from prune_env.config.sections import Section


class GranularitySettings(Section):
    """What all granularities share; a granularity's own settings class adds its keys."""

    name: str = Field(
        default="channel",
        min_length=1,
        description="The shape that is cut: channel (whole channels) or group (also kernels: convolutions fall into "
        "groups that read some of their inputs each, AGSPRL); or your own as package.module:class.",
    )
    action: Literal["share", "ratio"] = Field(
        default="share",
        description="What an action means. ratio: the unit's keep ratio, as in AMC. share (our choice): a factor on "
        "the keep ratio that would spend what is left of the budget evenly.",
    )


GRANULARITIES: Registry[Any] = Registry("granularity", "granularity.name")
"""Classes of granularities (`prune_env.granularity.Granularity`); settings are read by their ``Settings``."""
