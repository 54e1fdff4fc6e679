"""Short trainings of cut networks: what a plan is worth after some steps, for ``search.rungs``."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prune_env.common.copying import copied
from prune_env.common.errors import DataError
from prune_env.config.training import FinetuneSection
from prune_env.data import ImageSource, Indices
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import PruningPlan
from prune_env.recover import Batches, Teacher, Trainer, Workers
from prune_env.recover.small_sets import for_small_set
from prune_env.rewards import Outcome
from prune_env.tasks import Task


@dataclass
class ShortTraining:
    """Trains plans' networks for some steps, all on the same images in the same order, and measures them.

    The recipe is that of fine-tuning, over the given steps instead of its epochs, in contiguous float32 unless
    ``finetune.layout`` and ``finetune.dtype`` say otherwise: what is measured fastest would differ between workers.

    Attributes:
        source: The data set.
        indices: Images of its training split to train on: all but the reward set.
        settings: The recipe.
        seed: Seed of the images' order and augmentation.
        task: Task of the network.

    Raises:
        DataError: If there is no image to train on.
    """

    source: ImageSource
    indices: Indices = field(repr=False)
    settings: FinetuneSection
    seed: int
    task: Task
    _partners: tuple[Batches, Teacher | None] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.indices):
            raise DataError(
                "search.rungs: given, but no image is left to train on. Lower data.reward_images, or give no rungs."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends what makes the training: the copy in another process loads the images itself."""
        return type(self), (self.source, self.indices, self.settings, self.seed, self.task)

    def outcome(self, evaluator: Evaluator, plan: PruningPlan, steps: int) -> Outcome:
        """The outcome of a plan's network, as cut, repaired and recalibrated, after a training.

        Args:
            evaluator: Cuts and measures the network; its dense network is the teacher.
            plan: The plan.
            steps: Length of the training, 1 or more.

        Raises:
            EvaluationError: If the training diverges.
        """
        batches, teacher = self._prepared(evaluator)
        settings = self._section.model_copy(update={"epochs": 1})
        execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
        lasting = batches.lasting(steps)
        trainer = Trainer(evaluator.pruned(plan), lasting, settings, self.seed, batches.workers, execution, teacher)
        trainer.run_epoch()
        return evaluator.outcome_of(trainer.result.eval(), plan)

    @cached_property
    def _section(self) -> FinetuneSection:
        return for_small_set(self.settings, len(self.indices))[0]

    @cached_property
    def _answers(self) -> "TemporaryDirectory[str]":
        """The teacher's outputs, which all plans of this process ask for."""
        return TemporaryDirectory(prefix="prune-env-teacher-")

    def _prepared(self, evaluator: Evaluator) -> tuple[Batches, Teacher | None]:
        """Images and teacher, made once in each process."""
        if self._partners is None:
            workers = Workers(evaluator.device)
            batches = Batches(self.source, self.indices, self._section, self.seed, workers, self.task)
            taught = self._section.distillation > 0
            self._partners = batches, Teacher(copied(evaluator.model), Path(self._answers.name)) if taught else None
        return self._partners
