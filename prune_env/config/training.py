"""The sections of all trainings: pretraining, short fine-tuning for comparisons, and fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field

from prune_env.config.sections import Section
from prune_env.config.trust import OWN_CODE


class TrainingSection(Section):
    """Stochastic gradient descent with Nesterov momentum 0.9, linear warm-up and cosine decay of the learning rate."""

    epochs: int = Field(default=30, ge=1, description="Passes over the training images, 1 or more.")
    batch_size: int = Field(default=128, ge=1, description="Images per training step, over all processes, 1 or more.")
    learning_rate: float = Field(default=0.05, gt=0, description="Highest learning rate, above 0.")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises, in [0, 1)."
    )
    weight_decay: float = Field(
        default=5e-4, ge=0, description="Weight decay, 0 or more; not for biases and batch norms."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target's weight that is spread over all classes, in [0, 1)."
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Length of the moving average of the weights, as a share of all steps, in [0, 1); 0: no average.",
    )
    augment: Literal["none", "crop_flip", "resized_crop_flip"] | None = Field(
        default=None,
        description="Image augmentation: crop_flip shifts by at most an eighth of the side and mirrors, "
        "resized_crop_flip takes a resized crop and mirrors; null: the default of the data set.",
    )
    layout: Literal["channels_last", "contiguous"] | None = Field(
        default=None, description="Memory layout of feature maps; null: the faster one, measured."
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="Number type of the passes (autocast); null: the faster one, measured."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Threads of torch, 1 to 4096; null: torch's default, which OMP_NUM_THREADS sets.",
    )


class PretrainSection(TrainingSection):
    """Pretraining: ``prune-env pretrain``, and before a search if model.weights is null."""

    epochs: int = Field(default=0, ge=0, description="Passes over the training images, 0 (no training) or more.")
    batch_size: int = Field(default=64, ge=1, description="Images per training step, over all processes, 1 or more.")
    learning_rate: float = Field(default=0.03, gt=0, description="Highest learning rate, above 0.")


class FidelitySection(Section):
    """The short fine-tuning of ``prune-env compare --fidelity`` and ``--criteria``."""

    epochs: int = Field(default=1, ge=1, description="Passes over the images, 1 or more.")
    learning_rate: float = Field(default=0.01, gt=0, description="Highest learning rate, above 0.")
    images: int = Field(
        default=5000, ge=1, description="Largest number of training images, all outside the other sets, 1 or more."
    )
    plans: int = Field(
        default=20, ge=3, description="--fidelity: number of random plans at the budget to fine-tune, 3 or more."
    )

    def training(self) -> TrainingSection:
        """The settings of the fine-tuning: batches of 64, no augmentation, defaults for the rest [our choice]."""
        return TrainingSection(epochs=self.epochs, learning_rate=self.learning_rate, batch_size=64, augment="none")


class DistilledSection(TrainingSection):
    """A training that may imitate the dense network."""

    distillation: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Weight w of the loss against the dense network's outputs, in [0, 1]; the loss against the targets "
        "has the weight 1 - w; 0: no teacher.",
    )
    temperature: float = Field(
        default=4.0, gt=0, description="Temperature that softens the outputs of network and teacher, above 0."
    )


class SparsifySection(DistilledSection):
    """Sparse training before the cut: ``prune-env train`` with ``sparsify.epochs`` above 0."""

    epochs: int = Field(default=0, ge=0, description="Passes over the training images, 0 (no sparse training) or more.")
    penalty: Annotated[str, OWN_CODE] = Field(
        default="group_lasso",
        min_length=1,
        description="The penalty that makes parts of the network small before the search: group_lasso (channels), "
        "another name that `prune-env list penalties` prints, or your own as package.module:callable.",
    )
    strength: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the penalty in the loss, 0 or more; null: the penalty's own (group_lasso 1e-4, bn_scale "
        "1e-4, cdp 1e-5).",
    )
    growth: float = Field(
        default=15.0,
        ge=0,
        description="group_lasso: Growth of the strength for the least important channel of a unit over the training, "
        "as a multiple of the strength, 0 or more.",
    )
    mode: Literal["paper", "released"] = Field(
        default="paper",
        description="cdp: What balances filters and stripes. paper: the similarity of the filters' textures; released: "
        "nothing, as in the released code, which has twice the L1 norm.",
    )
    threshold: float = Field(
        default=0.0,
        ge=0,
        description="cdp: Threshold of a filter of mean strength, 0 or more; stripes that fall below their filter's "
        "threshold stay 0; 0: no threshold. In mode paper, strengths are relative to their layer's mean.",
    )
    distillation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Weight w of the loss against the outputs of the network before the sparse training, in [0, 1]; "
        "the loss against the targets has the weight 1 - w; 0: no teacher.",
    )


class FinetuneSection(DistilledSection):
    """Fine-tuning after the cut: ``prune-env finetune``."""

    average: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Length of the moving average of the weights, as a share of all steps, in [0, 1); 0: no average.",
    )
    teachers: tuple[str, ...] = Field(
        default=(),
        description="Folders of finished fine-tunings of the same dense network, such as RUN/finetune, whose networks "
        "teach beside the dense network: the mean of all outputs is imitated; only for outputs that are one tensor.",
    )
