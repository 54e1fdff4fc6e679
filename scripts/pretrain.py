"""`prune-env pretrain`: train a configuration's network from scratch."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor, nn

from prune_env.common.errors import ConfigError
from prune_env.data import ImageSet
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.evaluation.evaluator import measure_accuracy
from prune_env.models import load_weights
from prune_env.recover.workers import AcceleratedWorkers, Workers
from prune_env.runs.directory import RunDirectory
from prune_env.runs.training import (
    check_same_data,
    resume_training,
    set_threads,
    start_training,
    train_into,
    training_images,
)
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
    batches = training_images(splits, settings.pretrain, settings.seed, workers)
    untrained = settings.model_copy(update={"pretrain": settings.pretrain.model_copy(update={"epochs": 0})})
    model = load_model(untrained, splits)
    if config is not None:
        folder = start_training(place, settings, splits, model, workers)
    else:
        folder = resume_training(place)
        check_same_data(folder, splits)
        load_weights(model, folder.start)

    reward = [*_on([splits.reward()], workers)]

    def validate(network: nn.Module) -> float:
        return measure_accuracy(network.eval(), reward).accuracy

    epochs, passes = train_into(folder, model, batches, settings.pretrain, settings.seed, workers, validate)
    if not workers.first:
        return
    load_weights(model, folder.weights)
    record = {
        "model": settings.model.name,
        "reward_accuracy": validate(model),
        "test_accuracy": measure_accuracy(model, _on(splits.test_batches(BATCH), workers)).accuracy,
        "passes": passes._asdict(),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "epochs": [epoch.as_record() for epoch in epochs],
        "weights": str(folder.weights),
    }
    folder.write_json(folder.summary, record)
    if as_json:
        print_json(record)
        return
    results.print(
        f"{record['model']}: {record['reward_accuracy']:.2%} of the reward set, {record['test_accuracy']:.2%} of the "
        f"test set, {record['seconds']:.0f} s\nweights     {folder.weights}",
        soft_wrap=True,
    )


def _on(sets: Iterable[ImageSet], workers: Workers) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels batch by batch, on the process's device."""
    for one in sets:
        parts = zip(one.images.split(BATCH), one.labels.split(BATCH), strict=True)
        yield from ((images.to(workers.device), labels.to(workers.device)) for images, labels in parts)


if __name__ == "__main__":
    run_command(pretrain)
