"""`prune-env pretrain`: trains a configuration's network."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import (
    AsJson,
    Overrides,
    TrustRun,
    print_json,
    print_place,
    resumable,
    run_command,
    run_directory_of,
    tell,
    trust_of,
)
from prune_env.commands.next_steps import after_interrupted_pretraining, print_next, with_weights
from prune_env.commands.progress import shown_training
from prune_env.runs.pretraining import finish_pretraining, resume_pretraining, start_pretraining
from prune_env.runs.settings import read_settings
from prune_env.tasks import make_task, quality_of

Config = Annotated[
    Path | None,
    typer.Argument(
        help="A YAML file of settings, or a name that `prune-env configs` lists, such as digits.", show_default=False
    ),
]
Resume = Annotated[
    Path | None, typer.Option(help="The directory of an interrupted training, to resume it.", show_default=False)
]


def pretrain(
    config: Config = None,
    overrides: Overrides = None,
    resume: Resume = None,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Trains a network on all training images except the reward set, from scratch or from model.weights.

    To search with the result, set model.weights to the trained weights.
    For several GPUs or machines: `accelerate launch --module prune_env.commands.pretrain CONFIG`.
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter(
            "give a file of settings to start a training, or --resume FOLDER to resume one with its own settings; "
            f"{'neither was' if config is None else 'both were'} given."
        )
    trusted = trust_of(trust)
    if config is not None:
        settings = read_settings(config, overrides or ())
        place = run_directory_of(settings, config)
        place = place if settings.run.directory else place.with_name(f"{place.name}-pretrain")
    else:
        place = Path(str(resume))
    with resumable(lambda: after_interrupted_pretraining(place)):
        training = resume_pretraining(place, trusted) if config is None else start_pretraining(settings, place)
        with shown_training() as listener:
            record = finish_pretraining(training, listener)
    if record is None:
        return
    if as_json:
        print_json(record)
        return
    quality = quality_of(make_task(training.settings.task))
    tell(
        f"{record['model']}: {quality.name} {record[f'reward_{quality.name}']:{quality.format}} on the reward set, "
        f"{record[f'test_{quality.name}']:{quality.format}} on the test set, {record['seconds']:.0f} s"
    )
    print_place("weights", record["weights"])
    print_next(with_weights(str(config or training.folder.config), training.folder.weights))


if __name__ == "__main__":
    run_command(pretrain)
