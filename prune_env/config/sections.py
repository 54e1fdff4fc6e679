"""The sections of a run's settings: every key with its default, range, unit and meaning.

The command line, the YAML files and the docs all take their texts from here.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from prune_env.config.protection import RESIDUAL_STREAMS, spelled_out


class Section(BaseModel):
    """What all sections share: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1, and nobody who writes "epochs: true" means one epoch.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation not in (bool, bool | None):
            raise ValueError("must not be true or false")
        return value


class RunSection(Section):
    """Where a run is kept and what it runs on."""

    directory: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the run, which must not exist yet; null: runs/NAME.",
    )
    device: str = Field(default="auto", description="auto (a GPU where there is one), cpu, cuda or cuda:N.")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, colon, index = value.partition(":")
        if value in ("auto", "cpu", "cuda") or (kind == "cuda" and colon and index.isdecimal()):
            return value
        raise ValueError("must be auto, cpu, cuda or cuda:N")


class ModelSection(Section):
    """The network to prune."""

    name: str = Field(min_length=1, description="A network by name, or your own as package.module:callable.")
    weights: str | None = Field(
        default=None,
        min_length=1,
        description="Path of a safetensors file or state dict; pretrained: the network's own; null: none.",
    )
    arguments: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keyword arguments of the function that builds the network."
    )


class DataSection(Section):
    """The images; the reward, calibration and test set are disjoint."""

    name: str = Field(
        min_length=1,
        description="A data set by name, the layout of your own files, or your own as package.module:callable.",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or file that holds it; null: $PRUNE_ENV_DATA where the data set needs one.",
    )
    reward_images: int = Field(default=1000, ge=1, description="Images that the reward is measured on, 1 or more.")
    calibration_images: int = Field(
        default=256, ge=1, description="Images for batch-norm statistics and feature-map ranks, 1 or more."
    )
    test_images: int | None = Field(
        default=None, ge=1, description="Images of the test set, which no search sees, 1 or more; null: all."
    )
    image_size: int | None = Field(
        default=None,
        ge=1,
        description="Side of the images in pixels, 1 or more, for folders of images (null: 224); the other data sets "
        "have their own size.",
    )


class ExecutionSection(Section):
    """How the forward passes of an evaluation run; what is null is measured once per machine and network."""

    layout: Literal["channels_last", "contiguous"] | None = Field(
        default=None, description="Order of a map in memory; null: the faster one."
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Number type that plans are ranked in; null: bfloat16 where it is faster and ranks as float32 "
        "does. Final results are always float32.",
    )
    folded: bool | None = Field(
        default=None,
        description="Whether batch norms are folded into the convolutions before them; null: where that is faster.",
    )
    batch: int | None = Field(default=None, ge=1, description="Images a forward pass, 1 or more; null: the fastest.")
    threads: int | None = Field(
        default=None, ge=1, description="Threads of torch, 1 or more; null: one or torch's own choice, the faster."
    )


class BudgetSection(Section):
    """What the pruned network may cost."""

    metric: Literal["macs", "params", "latency"] = Field(
        default="macs",
        description="macs (multiply-adds of conv and linear layers), params, or latency (seconds a batch on this "
        "machine, by a formula fitted to its layers).",
    )
    keep: float = Field(default=0.5, gt=0, le=1, description="Share of the dense cost that may remain, in (0, 1].")
    batch: int = Field(default=32, ge=1, description="Images in the batch that latency is of, 1 or more.")


class EnvSection(Section):
    """What may be cut, and in what steps."""

    min_keep: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Least keep ratio that is decided of a unit, or least share of kernels where rates of kernels are "
        "decided, in (0, 1]; channels that nothing reads are cut beyond it.",
    )
    round_to: int | None = Field(
        default=1,
        ge=1,
        description="Widths are multiples of this many channels, 1 or more; null: of as many as make networks at the "
        "budget fastest on this machine, measured.",
    )
    protect: dict[str, str] = Field(
        default_factory=dict,
        description="Modules that may not be cut: dotted name to reason in words. The name residual_streams stands for "
        "every unit that two or more layers write by addition, and may be given alone.",
    )

    @field_validator("protect", mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        found = spelled_out(value)
        if isinstance(found, str):
            raise ValueError(f"must be {RESIDUAL_STREAMS}, or a mapping of module names to reasons in words")
        return found


class CriterionSection(Section):
    """Which channels of a unit stay."""

    name: str = Field(
        default="consumer_error",
        min_length=1,
        description="Score of a channel, or your own as package.module:callable; the best-scored channels stay.",
    )
    images: int = Field(
        default=512, ge=1, description="Calibration images that it looks at, 1 or more; no more than there are."
    )


class RepairSection(Section):
    """How layers that read cut channels make up for them, beside batch-norm statistics that are measured anew."""

    name: str = Field(
        default="none",
        min_length=1,
        description="none, least_squares (weights are fitted so that their outputs stay near the dense network's), or "
        "your own as package.module:callable.",
    )
    ridge: float = Field(
        default=1e-3,
        ge=1e-5,
        description="least_squares: how strongly weights are held to what they were, as a share of the inputs' mean "
        "square, 1e-5 or more.",
    )
    images: int = Field(
        default=256,
        ge=1,
        description="least_squares: calibration images that the fit goes by, 1 or more; no more than there are.",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _refuse_merge(cls, value: Any) -> Any:
        if value == "merge":
            raise ValueError(
                "merging was removed, since it lost quality with every criterion; give none or least_squares"
            )
        return value


class SensitivitySection(Section):
    """Layers that are protected because many of their feature maps have a low rank."""

    enabled: bool = Field(default=True, description="Whether sensitive layers are looked for and protected.")
    rank_threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A map is low-rank if rank / min(height, width) is below this, in [0, 1].",
    )
    layer_threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A layer is sensitive if more than this share of its maps is low-rank, in [0, 1].",
    )
    top_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="At most this share of the layers (rounded up to a whole one), those richest in low-rank maps, is "
        "sensitive, in [0, 1]; null: no such limit.",
    )
    images: int = Field(default=256, ge=1, description="Calibration images used, 1 or more; no more than there are.")
    probe_keep: float | None = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Each unit is cut alone to this keep ratio once, to show the agent how far the loss rises; "
        "counted as evaluations; null: not measured.",
    )


class RewardSection(Section):
    """What the agent is rewarded for."""

    name: str = Field(
        default="error", min_length=1, description="A reward by name, or your own as package.module:callable."
    )
    settings: dict[str, float] = Field(default_factory=dict, description="Numbers that the reward takes.")


class SearchSection(Section):
    """How long to search."""

    racing: bool = Field(
        default=False,
        description="Whether a plan is given up within its evaluation once it cannot become the best with 99 % "
        "confidence; for rewards that look at quality and cost alone.",
    )
    evaluations: int = Field(
        default=200,
        ge=1,
        description="Plans to evaluate: one for each free unit where sensitivity.probe_keep is set, then one an "
        "episode.",
    )
