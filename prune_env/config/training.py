"""The sections of everything that trains: on the spot, briefly for a comparison, and after the cut."""

from typing import Literal

from pydantic import Field

from prune_env.config.sections import Section


class TrainingSection(Section):
    """Stochastic gradient descent with Nesterov momentum 0.9; the learning rate rises evenly and falls as a cosine."""

    epochs: int = Field(default=30, ge=1, description="Passes over the training images, 1 or more.")
    batch_size: int = Field(
        default=128, ge=1, description="Images per training step, of all processes together, 1 or more."
    )
    learning_rate: float = Field(default=0.05, gt=0, description="Highest learning rate, above 0.")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises, in [0, 1)."
    )
    weight_decay: float = Field(
        default=5e-4, ge=0, description="Weight decay, 0 or more; not on biases and batch norms."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of a target's class that is spread over all classes, in [0, 1)."
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the steps that the kept weights are a moving average over, in [0, 1); 0: none.",
    )
    augment: Literal["none", "crop_flip", "resized_crop_flip"] | None = Field(
        default=None,
        description="How images are varied: crop_flip shifts by an eighth of the side at most and mirrors, "
        "resized_crop_flip cuts out a part and mirrors; null: as is usual with the data set.",
    )
    layout: Literal["channels_last", "contiguous"] | None = Field(
        default=None, description="Order of a map in memory; null: the faster one, measured."
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="Number type of the passes (autocast); null: the faster one, measured."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of torch, 1 or more; null: torch's own choice, which OMP_NUM_THREADS sets.",
    )


class PretrainSection(TrainingSection):
    """Training from scratch: ``prune-env pretrain``, and on the spot where model.weights is null."""

    epochs: int = Field(default=0, ge=0, description="Passes over the training images, 0 (no training) or more.")
    batch_size: int = Field(
        default=64, ge=1, description="Images per training step, of all processes together, 1 or more."
    )
    learning_rate: float = Field(default=0.03, gt=0, description="Highest learning rate, above 0.")


class FidelitySection(Section):
    """The short fine-tuning of ``prune-env compare --fidelity`` and ``--criteria``."""

    epochs: int = Field(default=1, ge=1, description="Passes over the images, 1 or more.")
    learning_rate: float = Field(default=0.01, gt=0, description="Highest learning rate, above 0.")
    images: int = Field(default=5000, ge=1, description="Images trained on at most, none of another set's, 1 or more.")
    plans: int = Field(
        default=20, ge=3, description="--fidelity: random plans at the budget that are fine-tuned, 3 or more."
    )

    def training(self) -> TrainingSection:
        """How a plan is fine-tuned: in batches of 64, on images as they are; the rest by default [our choice]."""
        return TrainingSection(epochs=self.epochs, learning_rate=self.learning_rate, batch_size=64, augment="none")


class FinetuneSection(TrainingSection):
    """Training after the cut: ``prune-env finetune``."""

    average: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the steps that the kept weights are a moving average over, in [0, 1); 0: none.",
    )
    distillation: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Weight of the dense network's softened output against the target's, in [0, 1]; 0: no teacher.",
    )
    temperature: float = Field(
        default=4.0, gt=0, description="What both outputs are divided by before they are compared, above 0."
    )
