"""Fine-tunes one plan by several recipes: `python -m benchmarks.recipes RUN KEY=VALUE,VALUE ... [key.path=value ...]`.

A setting with commas has a value for each recipe; several such settings make a grid. Each recipe is an ordinary
fine-tuning of the run, in ``RUN/recipe-...``. A repeated command trains only what is missing. All recipes share the
teacher's outputs. Recipes are ranked on the test images of even number; those of odd number took no part in the choice.

    python -m benchmarks.recipes runs/uniform finetune.learning_rate=0.03,0.1 finetune.weight_decay=5e-4,1.5e-3,3e-3
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import safetensors.torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from prune_env.runs.finetuning import finish_finetuning, resume_finetuning, start_finetuning
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training import TrainingListener
from prune_env.runs.training_folder import TrainingFolder

console = Console(width=120)


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        name: The folder of its fine-tuning within the run.
        overrides: Its settings.
    """

    name: str
    overrides: tuple[str, ...]


def recipes_of(given: Sequence[str]) -> list[Recipe]:
    """The grid of recipes, from settings whose values may be separated by commas."""
    fixed = [setting for setting in given if "," not in setting]
    varied: dict[str, list[str]] = {}
    for setting in given:
        key, _, values = setting.partition("=")
        if "," in values:
            varied[key] = values.split(",")
    recipes = []
    for choice in product(*varied.values()):
        chosen = [f"{key}={value}" for key, value in zip(varied, choice, strict=True)]
        short = [setting.removeprefix("finetune.") for setting in (*fixed, *chosen)]
        recipes.append(Recipe("-".join(["recipe", *short]), (*fixed, *chosen)))
    return recipes


def train(run: RunDirectory, recipe: Recipe) -> None:
    """Starts or resumes a fine-tuning, to its end; does nothing where it is finished."""
    folder = TrainingFolder(run.root / recipe.name)
    if folder.summary.is_file():
        return
    listener = TrainingListener(on_epoch=lambda epoch, _: console.print(f"{recipe.name}: epoch {epoch.number}"))
    started = folder.config.is_file()
    tuning = (
        resume_finetuning(run, recipe.name, listener)
        if started
        else start_finetuning(run, recipe.overrides, recipe.name, listener)
    )
    finish_finetuning(tuning, listener)


def qualities(folder: TrainingFolder) -> Mapping[str, float]:
    """The shares of right images among the test images of even and of odd number, and among all."""
    right = safetensors.torch.load_file(folder.right)["fine-tuned"].double()
    return {"even": right[::2].mean().item(), "odd": right[1::2].mean().item(), "all": right.mean().item()}


def main(arguments: list[str]) -> None:
    """Trains what is missing, and prints the table."""
    run, recipes = RunDirectory.open(arguments[0]), recipes_of(arguments[1:])
    for recipe in recipes:
        train(run, recipe)
    found = {recipe: qualities(TrainingFolder(run.root / recipe.name)) for recipe in recipes}
    table = Table(box=SIMPLE, title=f"{run.root}, test images in %", title_justify="left")
    for heading in ("recipe", "even (chosen on)", "odd", "all", "loss, last epoch", "seconds"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for recipe, shares in sorted(found.items(), key=lambda item: -item[1]["even"]):
        folder = TrainingFolder(run.root / recipe.name)
        summary = folder.read_json(folder.summary)
        percents = (f"{100 * shares[key]:.2f}" for key in ("even", "odd", "all"))
        name = " ".join(setting.removeprefix("finetune.") for setting in recipe.overrides)
        table.add_row(name, *percents, f"{summary['epochs'][-1]['loss']:.3f}", f"{summary['seconds']:.0f}")
    console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
