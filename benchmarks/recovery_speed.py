"""Images a second of a fine-tuning, and the loader's share: `python -m benchmarks.recovery_speed CONFIG [STEPS]`.

The network is the configuration's, at the uniform widths of its budget. One thread, the layout and number type of
``finetune.*`` (contiguous and float32 where they are open). The settings may follow as key.path=value.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import nn

from prune_env import RunConfig
from prune_env.common.copying import copied
from prune_env.env.builders import build_budget, build_evaluator, trace
from prune_env.env.loading import load_model, load_splits
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover import Batches, Teacher, Trainer, Workers
from prune_env.runs.training import training_images
from prune_env.tasks import make_task

STEPS = 40


@dataclass(frozen=True)
class Bench:
    """A network to fine-tune for one short epoch."""

    network: nn.Module
    dense: nn.Module
    config: RunConfig
    batches: Batches

    def seconds(self, teacher: Teacher | None) -> tuple[float, float, float]:
        """Wall-clock seconds, processor seconds, and the share of waiting for images, of one epoch."""
        settings = self.config.finetune
        execution = ExecutionSettings.for_training(settings.layout or "contiguous", settings.dtype or "float32")
        trainer = Trainer(copied(self.network), self.batches, settings, 0, self.batches.workers, execution, teacher)
        started = time.process_time()
        epoch = trainer.run_epoch()
        return epoch.seconds, time.process_time() - started, epoch.waiting


def bench_of(config: RunConfig, steps: int) -> Bench:
    """The bench of a configuration."""
    splits, task = load_splits(config), make_task(config.task)
    model = load_model(config, splits)
    walk = trace(config, splits, model)
    budget = build_budget(config, splits, walk)
    network = build_evaluator(config, splits, walk, None).pruned(walk.plan(budget.names(budget.uniform())))
    batches = training_images(splits, config.finetune, config.seed, Workers(torch.device("cpu")), task, steps)
    return Bench(network, model, config, batches)


def measured(bench: Bench) -> dict[str, tuple[float, float, float]]:
    """`Bench.seconds` without a teacher, with one that computes, and with one whose outputs are kept."""
    with TemporaryDirectory() as folder:
        bench.seconds(None)  # the first epoch is slower
        return {
            "no teacher": bench.seconds(None),
            "teacher, computed": bench.seconds(Teacher(bench.dense, Path(folder))),
            "teacher, kept": bench.seconds(Teacher(bench.dense, Path(folder))),
        }


def main(arguments: list[str]) -> None:
    """Prints the table."""
    numbers = [int(word) for word in arguments[1:] if word.isdigit()]
    config = RunConfig.load(arguments[0], [word for word in arguments[1:] if "=" in word])
    torch.set_num_threads(1)
    bench = bench_of(config, numbers[0] if numbers else STEPS)
    images = len(bench.batches) * bench.batches.batch_size
    table = Table(box=SIMPLE)
    for heading in ("fine-tuning", "images/s", "images a processor second", "loader's share"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for name, (seconds, processor, waiting) in measured(bench).items():
        table.add_row(name, f"{images / seconds:.0f}", f"{images / processor:.0f}", f"{waiting:.1%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
