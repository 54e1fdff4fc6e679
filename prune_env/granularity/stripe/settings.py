"""The settings of granularity stripe."""

from typing import Literal

from pydantic import Field

from prune_env.config.granularity import GranularitySettings


class StripeSettings(GranularitySettings):
    """Settings of the stripes: how a unit's stripes are shared out among its filters. An action decides their share."""

    sharing: Literal["threshold", "equal"] = Field(
        default="threshold",
        description="How the stripes that stay are shared out among filters. threshold: each filter has a threshold "
        "of its own, lower for strong filters (DTC); filters without stripes go. equal: each filter keeps as many.",
    )
    strength: Literal["skeleton", "criterion"] = Field(
        default="skeleton",
        description="Strength of a filter for its threshold. skeleton: the sum of its stripes' norms, as in DTC; "
        "criterion: the filter's score by criterion.name.",
    )
