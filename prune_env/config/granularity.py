"""The granularity's section: the shape to cut, and the settings of the named granularity."""

from typing import Annotated, Any, Literal

from pydantic import Field

from prune_env.common.registry import Registry, class_with
from prune_env.config.sections import Section
from prune_env.config.trust import OWN_CODE


class GranularitySettings(Section):
    """The common settings of all granularities; a granularity's own settings class adds its keys."""

    name: Annotated[str, OWN_CODE] = Field(
        default="channel",
        min_length=1,
        description="The shape to cut: channel (whole channels), another name that `prune-env list granularities` "
        "prints, or your own as package.module:class.",
    )
    action: Literal["share", "ratio"] = Field(
        default="share",
        description="The meaning of an action. ratio: the unit's keep ratio, as in AMC. share (our choice): a factor "
        "on the keep ratio that spends the rest of the budget evenly.",
    )


GRANULARITIES: Registry[Any] = Registry(
    "granularity",
    "granularity.name",
    adopt=class_with("granularity.name", "prune_env.granularity.Granularity", "Settings", "prepare", "builder"),
    home="prune_env.granularity",
)
"""Classes of granularities (`prune_env.granularity.Granularity`); their ``Settings`` read the section."""
