"""The settings of granularity group."""

from typing import Literal

from pydantic import Field

from prune_env.config.granularity import GranularitySettings


class GroupSettings(GranularitySettings):
    """Settings of the groups: the action, the allowed counts, the choice of inputs."""

    action: Literal["share", "ratio", "pruning_rate"] = Field(  # type: ignore[assignment]
        default="share",
        description="As for channels, with the group count as a second number. pruning_rate (AGSPRL): one number, the "
        "share of kernels that go; groups follow from it.",
    )
    max_groups: int = Field(default=8, ge=1, description="Largest group count of a convolution, 1 or more.")
    only_faster: bool = Field(
        default=False,
        description="Whether to allow only group counts with which the convolution is faster on this machine, as "
        "measured.",
    )
    kernels: Literal["norm", "second_order"] = Field(
        default="second_order",
        description="Kernel score by which groups choose their inputs. norm: the kernel's squared L2 norm; "
        "second_order: the rise of the layer's squared error without the kernel.",
    )
    selectors: bool = Field(
        default=False,
        description="Whether fine-tuning trains an attention selector for each group, which chooses the group's inputs "
        "anew. In the first half of the training the number of inputs falls from all to the plan's number; then the "
        "choice is fixed.",
    )
    selector_penalty: float = Field(
        default=1e-3, ge=0, description="Weight of the selectors' mean gate in the loss, 0 or more."
    )
