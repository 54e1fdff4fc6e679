"""The sections of a run's settings: every key with its default, range, unit and meaning.

Error messages and docs take their texts from here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from prune_env.config.protection import RESIDUAL_STREAMS, spelled_out
from prune_env.config.trust import OWN_CLUSTER, OWN_CODE, OWN_LOG


class Section(BaseModel):
    """Base of all sections: refuses unknown keys, and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1, but "epochs: true" is a mistake.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation not in (bool, bool | None):
            raise ValueError("must not be true or false")
        return value


class RunSection(Section):
    """The folder and the device of a run."""

    directory: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the run, which must not exist yet; null: runs/NAME, after the file.",
    )
    force: bool = Field(
        default=False,
        description="Whether to go on with a dense network whose quality is near chance, or that is far better once "
        "its batch norms are measured anew; --force on the command line.",
    )
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu, cuda or cuda:N.")

    address: Annotated[str | None, OWN_CLUSTER] = Field(
        default=None,
        min_length=1,
        description="The Ray cluster whose nodes measure plans (extra ray): auto (the one that this machine belongs "
        "to), local, or HOST:PORT of its head node; null: this machine alone. search.workers: auto takes all of its "
        "processors, or GPUs.",
    )

    log: Annotated[tuple[str, ...], OWN_LOG] = Field(
        default=(),
        description="More places that a search logs to: optuna://FILE.db (an Optuna study for optuna-dashboard), csv "
        "(evaluations.csv in the run), and Accelerate's trackers that are installed, such as wandb or mlflow.",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, colon, index = value.partition(":")
        if value in ("auto", "cpu", "cuda") or (kind == "cuda" and colon and index.isdecimal()):
            return value
        raise ValueError("must be auto, cpu, cuda or cuda:N")


class ModelSection(Section):
    """The network to prune."""

    name: Annotated[str, OWN_CODE] = Field(
        min_length=1, description="A network by name, or your own as package.module:callable."
    )
    weights: str | None = Field(
        default=None,
        min_length=1,
        description="Path of a safetensors file or state dict; pretrained: the network's own pretrained weights; "
        "null: none.",
    )
    arguments: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keyword arguments of the function that builds the network."
    )


class DataSection(Section):
    """The images; the reward, calibration and test set are disjoint."""

    name: Annotated[str, OWN_CODE] = Field(
        min_length=1,
        description="A data set by name, the layout of your own files, or your own as package.module:callable.",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or file of the data set; null: $PRUNE_ENV_DATA, if the data set needs a folder.",
    )
    reward_images: int = Field(default=1000, ge=1, description="Images of the reward set, 1 or more.")
    calibration_images: int = Field(
        default=256, ge=1, description="Images of the calibration set, for batch norms and ranks, 1 or more."
    )
    test_images: int | None = Field(
        default=None, ge=1, description="Images of the test set, which no search sees, 1 or more; null: all."
    )
    image_size: int | tuple[int, int] | None = Field(
        default=None,
        description="Height and width of the images in pixels, 1 or more, for data sets of image files: one number, or "
        "[height, width] where boxes are known (null: that of the pretrained weights, else 224, with boxes 320); other "
        "data sets have a fixed size.",
    )
    resize: int | None = Field(
        default=None,
        ge=1,
        description="Shorter side of an image file in pixels, 1 or more, before its middle is cut to image_size; null: "
        "that of the pretrained weights, else 256/224 of image_size.",
    )
    interpolation: Literal["bilinear", "bicubic"] | None = Field(
        default=None,
        description="How image files are resized; null: as for the pretrained weights, else bilinear.",
    )
    mean: tuple[float, ...] | None = Field(
        default=None,
        min_length=1,
        description="Mean that is subtracted from each channel, for intensities in 0..1; null: that of the pretrained "
        "weights for image files, else the data set's own.",
    )
    std: tuple[PositiveFloat, ...] | None = Field(
        default=None,
        min_length=1,
        description="Standard deviation by which each channel is divided, for intensities in 0..1, above 0; null: as "
        "for mean.",
    )

    @field_validator("image_size", mode="before")
    @classmethod
    def _one_side_or_two(cls, value: Any) -> Any:
        sides = list(value) if isinstance(value, (list, tuple)) else [value, value]
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
        if value is not None and not (whole and len(sides) == 2):
            raise ValueError("must be null, a whole number of 1 or more, or two of them: [height, width]")
        return value


class ExecutionSection(Section):
    """Execution settings of an evaluation's forward passes; null values are measured per machine and network."""

    layout: Literal["channels_last", "contiguous"] | None = Field(
        default=None, description="Memory layout of feature maps; null: the faster one, measured."
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Number type of the evaluations in a search; null: bfloat16 if it is faster and ranks plans as "
        "float32 does. Final results are always float32.",
    )
    folded: bool | None = Field(
        default=None,
        description="Whether to fold batch norms into the convolutions before them; null: if it is faster.",
    )
    batch: int | None = Field(
        default=None, ge=1, description="Images per forward pass, 1 or more; null: the fastest number, measured."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Threads of torch, 1 to 4096; null: 1 or torch's default, whichever is faster.",
    )


class BudgetSection(Section):
    """The budget: the allowed cost of the pruned network."""

    metric: Literal["macs", "params", "latency"] = Field(
        default="macs",
        description="macs (multiply-adds of conv and linear layers), params, or latency (seconds per batch on this "
        "machine, by a formula fitted to timings of its layers).",
    )
    keep: float = Field(default=0.5, gt=0, le=1, description="Share of the dense cost that may remain, in (0, 1].")
    macs: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the dense MACs that may remain, in (0, 1], whatever the metric; null: no such limit. A "
        "plan meets every limit. Without keep, the first of macs and params is metric and keep.",
    )
    params: float | None = Field(default=None, gt=0, le=1, description="As macs, of the params.")
    batch: int = Field(default=32, ge=1, description="Images in the batch for latency, 1 or more.")

    @model_validator(mode="before")
    @classmethod
    def _main_budget(cls, given: Any) -> Any:
        """Without metric and keep, the first of macs and params stands for them."""
        if not isinstance(given, Mapping) or given.get("keep") is not None:
            return given
        named = [name for name in ("macs", "params") if given.get(name) is not None]
        metric = given.get("metric") or next(iter(named), None)
        return {**given, "metric": metric, "keep": given[metric]} if metric in named else given

    @model_validator(mode="after")
    def _one_share_for_each_metric(self) -> Self:
        share = {"macs": self.macs, "params": self.params}.get(self.metric)
        if share not in (None, self.keep):
            raise ValueError(
                f"keep is {self.keep} and {self.metric} is {share}, but both are the share of the {self.metric}; give "
                "one of them"
            )
        return self

    @property
    def also(self) -> dict[Literal["macs", "params"], float]:
        """The shares that a plan must meet besides ``keep``, by metric."""
        shares: dict[Literal["macs", "params"], float | None] = {"macs": self.macs, "params": self.params}
        return {name: share for name, share in shares.items() if share is not None and name != self.metric}

    def as_record(self) -> dict[str, Any]:
        """The limits as plain data, for ``summary.json``."""
        also = {"also": self.also} if self.also else {}
        return {"metric": self.metric, "keep": self.keep, **also}


def budget_in_words(shares: Mapping[Any, float]) -> str:
    """A budget in words, such as ``50% of the MACs and 40% of the params``, from its shares by metric."""
    return " and ".join(f"{share:.0%} of the {'MACs' if name == 'macs' else name}" for name, share in shares.items())


class EnvSection(Section):
    """Limits and steps of the cuts."""

    min_keep: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Least keep ratio of a unit, or least share of kernels if actions decide pruning rates of "
        "kernels, in (0, 1]; channels that no layer reads are cut below this limit.",
    )
    round_to: int | None = Field(
        default=1,
        ge=1,
        description="Widths are multiples of this number of channels, 1 or more; null: the multiple with the fastest "
        "networks at the budget on this machine, measured.",
    )
    trace_seconds: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit of the walk of the network in seconds, above 0; a walk that takes longer says where.",
    )
    approximate: bool = Field(
        default=False,
        description="Whether units may be cut although this changes what stays, such as those of a layer norm or of "
        "attention over channels. inspect shows how much.",
    )
    protect: dict[str, str] = Field(
        default_factory=dict,
        description="Modules that must not be cut: a mapping of dotted names to reasons in words. residual_streams, "
        "alone or as a name, stands for every unit that two or more layers write by addition.",
    )

    @field_validator("protect", mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        found = spelled_out(value)
        if isinstance(found, str):
            raise ValueError(f"must be {RESIDUAL_STREAMS}, or a mapping of module names to reasons in words")
        return found


class CriterionSection(Section):
    """The criterion, which decides the channels that stay at a width."""

    name: Annotated[str, OWN_CODE] = Field(
        default="consumer_error",
        min_length=1,
        description="Score of a channel by name, or your own as package.module:callable; the best-scored channels "
        "stay.",
    )
    images: int = Field(
        default=512,
        ge=1,
        description="Calibration images for the scores, 1 or more; at most data.calibration_images are used.",
    )


class RepairSection(Section):
    """The repair of layers with cut inputs; batch-norm statistics are always measured again."""

    name: Annotated[str, OWN_CODE] = Field(
        default="none",
        min_length=1,
        description="none, least_squares (fits the weights of layers with cut inputs to the dense network's "
        "outputs), or your own as package.module:callable.",
    )
    ridge: float = Field(
        default=1e-3,
        ge=1e-5,
        description="least_squares: strength of the pull towards the old weights, as a share of the inputs' mean "
        "square, 1e-5 or more.",
    )
    images: int = Field(
        default=256,
        ge=1,
        description="least_squares: calibration images for the fit, 1 or more; at most data.calibration_images are "
        "used.",
    )


class SensitivitySection(Section):
    """Protection of sensitive layers: layers with many low-rank feature maps."""

    enabled: bool = Field(default=True, description="Whether to find and protect sensitive layers.")
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
        description="Largest share of layers that can be sensitive, in [0, 1], rounded up to a whole layer; layers "
        "with the most low-rank maps come first; null: no limit.",
    )
    images: int = Field(
        default=256,
        ge=1,
        description="Calibration images for the ranks, 1 or more; at most data.calibration_images are used.",
    )
    probe_keep: float | None = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Keep ratio of the probes, in (0, 1]: each unit is cut alone once, to show the agent the rise of "
        "the loss; probes count as evaluations; null: no probes.",
    )


class RewardSection(Section):
    """The reward."""

    name: Annotated[str, OWN_CODE] = Field(
        default="error", min_length=1, description="A reward by name, or your own as package.module:callable."
    )
    settings: dict[str, float] = Field(default_factory=dict, description="Numeric settings of the reward, by name.")


class SearchSection(Section):
    """The length of the search, and the workers that measure its plans."""

    racing: bool = Field(
        default=False,
        description="Whether to stop the evaluation of a plan that, with 99 % confidence, cannot become the best; "
        "only for the library's rewards and for a quality that is the share of correct images.",
    )
    evaluations: int = Field(
        default=200,
        ge=1,
        description="Number of plans to evaluate, 1 or more: one for each free unit if sensitivity.probe_keep is "
        "set, then one per episode.",
    )
    workers: int | Literal["auto"] = Field(
        default=1,
        description="Processes of this machine that measure plans, 1 or more, one thread each; auto: one for each "
        "processor. The result does not depend on their number. More than search.lag are idle except for probes and "
        "plans that depend on no outcome.",
    )
    lag: int = Field(
        default=1,
        ge=1,
        description="Plans in flight, 1 or more: a plan is proposed before the outcomes of the lag - 1 plans before it "
        "are known, so that as many workers as this can measure at once. The lag changes the result; the number of "
        "workers never does.",
    )

    schedule: int | None = Field(
        default=None,
        ge=1,
        description="Evaluations that the agent's schedules are made for (demonstrations, warm-up, imitation, replay "
        "buffer), 1 or more; null: search.evaluations. `prune-env train --resume RUN search.evaluations=N` sets it to "
        "the run's first number, so that a search of another length begins as the run did.",
    )

    @property
    def scheduled(self) -> int:
        """Evaluations that the agent's schedules are made for."""
        return self.schedule or self.evaluations

    @field_validator("workers", mode="before")
    @classmethod
    def _count_workers(cls, value: Any) -> Any:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError("must be 1 or more, or auto")
