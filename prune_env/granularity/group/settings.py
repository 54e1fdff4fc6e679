"""The settings of granularity group."""

from typing import Literal

from pydantic import Field

from prune_env.config.granularity import GranularitySettings


class GroupSettings(GranularitySettings):
    """What convolutions may fall into groups, and how that is decided."""

    action: Literal["share", "ratio", "pruning_rate"] = Field(  # type: ignore[assignment]
        default="share",
        description="As for channels, with the group count as a second number. pruning_rate (AGSPRL): one number, the "
        "share of kernels that go, from which groups follow.",
    )
    max_groups: int = Field(default=8, ge=1, description="Most groups of a convolution, 1 or more.")
    only_faster: bool = Field(
        default=False,
        description="Whether a convolution is allowed only those group counts with which it is faster on this machine, "
        "measured.",
    )
    kernels: Literal["norm", "second_order"] = Field(
        default="second_order",
        description="Score of a kernel, by which groups choose what they read. norm: its squared L2 norm; "
        "second_order: how far its layer's squared error rises without it.",
    )
    selectors: bool = Field(
        default=False,
        description="Whether fine-tuning trains an attention selector for each group, which chooses anew what the "
        "group reads: from all inputs down to as many as the plan says over the first half of the training, then for "
        "good.",
    )
    selector_penalty: float = Field(
        default=1e-3, ge=0, description="selectors: weight of their mean gate in the loss, 0 or more."
    )
