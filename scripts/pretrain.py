"""`prune-env pretrain`: train a configuration's network from scratch."""

from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from prune_env.common.errors import ConfigError
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.evaluation.measuring import measure
from prune_env.models import load_weights
from prune_env.recover.workers import AcceleratedWorkers
from prune_env.runs.directory import RunDirectory
from prune_env.runs.training import (
    check_same_data,
    resume_training,
    set_threads,
    start_training,
    train_into,
    training_images,
)
from prune_env.tasks import make_task, quality_of
from scripts.common import AsJson, Overrides, print_json, read_config, results, run_command, run_directory_of

BATCH = 256
"""Images a forward pass where the network is measured."""

Config = Annotated[Path | None, typer.Argument(help="A YAML file of settings.", show_default=False)]
Resume = Annotated[
    Path | None, typer.Option(help="The directory of a training that was interrupted.", show_default=False)
]


def pretrain(
    config: Config = None, overrides: Overrides = None, resume: Resume = None, as_json: AsJson = False
) -> None:
    """Trains a network on all but the reward set, from scratch or on from model.weights, which takes its weights then.

    Runs on several GPUs or machines by `accelerate launch --module scripts.pretrain CONFIG`.
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter(
            "give a file of settings to start a training, or --resume FOLDER to take one up with its own settings; "
            f"{'neither was' if config is None else 'both were'} given."
        )
    if config is not None:
        settings = read_config(config, overrides)
        if not settings.pretrain.epochs:
            raise ConfigError("pretrain.epochs: 0 given; training takes 1 or more.")
        place = run_directory_of(settings, config)
        place = place if settings.run.directory else place.with_name(f"{place.name}-pretrain")
        RunDirectory.check_free(place)
    else:
        place = Path(str(resume))
        settings = read_config(resume_training(place).config, None)
    set_threads(settings.pretrain)
    workers = AcceleratedWorkers(device_of(settings))
    splits = load_splits(settings)
    task = make_task(settings.task)
    batches = training_images(splits, settings.pretrain, settings.seed, workers, task)
    untrained = settings.model_copy(update={"pretrain": settings.pretrain.model_copy(update={"epochs": 0})})
    model = load_model(untrained, splits)
    if config is not None:
        folder = start_training(place, settings, splits, model, workers)
    else:
        folder = resume_training(place)
        check_same_data(folder, splits)
        load_weights(model, folder.start)

    reward = splits.reward().to(workers.device)

    def validate(network: nn.Module) -> float:
        return measure(network.eval(), reward.batches(BATCH), task).quality

    epochs, passes = train_into(folder, model, batches, settings.pretrain, settings.seed, workers, validate)
    if not workers.first:
        return
    load_weights(model, folder.weights)
    quality = quality_of(task)
    test = (batch for part in splits.test_batches(BATCH) for batch in part.to(workers.device).batches(BATCH))
    record = {
        "model": settings.model.name,
        f"reward_{quality.name}": validate(model),
        f"test_{quality.name}": measure(model, test, task).quality,
        "passes": passes._asdict(),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "epochs": [epoch.as_record(task) for epoch in epochs],
        "weights": str(folder.weights),
    }
    folder.write_json(folder.summary, record)
    if as_json:
        print_json(record)
        return
    results.print(
        f"{record['model']}: {quality.name} {record[f'reward_{quality.name}']:{quality.form}} on the reward set, "
        f"{record[f'test_{quality.name}']:{quality.form}} on the test set, {record['seconds']:.0f} s\n"
        f"weights     {folder.weights}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_command(pretrain)
