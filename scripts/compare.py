"""`prune-env compare`: compares searches, criteria, or reward and fine-tuned quality on one problem."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import (
    AsJson,
    ConfigArgument,
    Force,
    Overrides,
    between_commas,
    command_line,
    forced,
    notice,
    print_json,
    print_place,
    results,
    resumable,
    run_command,
    run_directory_of,
    tell_dense,
)
from prune_env.commands.next_steps import after_interrupted_runs, print_next, with_comparison, with_config
from prune_env.commands.progress import phases
from prune_env.common.errors import ConfigError
from prune_env.common.words import counted
from prune_env.config import RunConfig
from prune_env.criteria import criterion_named, known_criteria
from prune_env.report.criterion_table import render_criteria
from prune_env.report.fidelity_table import render_fidelity
from prune_env.report.recovery_table import render_recovery
from prune_env.report.search_comparison import ranked, render, title_of
from prune_env.report.whole_runs import run_comparison, run_recovery
from prune_env.runs.criterion_comparison import compare_criteria
from prune_env.runs.fidelity import measure_fidelity
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.recovery_comparison import RecoveryComparison
from prune_env.runs.settings import read_settings
from prune_env.search.pools.make import worker_count
from prune_env.search.registry import SEARCHES
from prune_env.tasks import make_task, quality_of

DEFAULT = "uniform,random,greedy,power,eigenvalue,cma,cma_from_rules,tpe,ddpg"

Searches = Annotated[str, typer.Option(help=f"Comma-separated names, of: {', '.join(SEARCHES)}.")]
Evaluations = Annotated[
    int | None, typer.Option(min=1, help="Evaluations of each search, probes included. [default: search.evaluations]")
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds; the first is the configuration's.")]
Criteria = Annotated[
    str | None, typer.Option(help="Compare criteria at the uniform widths instead: comma-separated names, or all.")
]
Fidelity = Annotated[
    bool, typer.Option("--fidelity", help="Measure instead how well the reward predicts fine-tuned quality.")
]

Finetune = Annotated[
    bool,
    typer.Option(
        "--finetune", help="Fine-tune every plan and the dense network by the same recipe (finetune.*), and compare."
    ),
]


def compare(
    config: ConfigArgument,
    overrides: Overrides = None,
    searches: Searches = DEFAULT,
    evaluations: Evaluations = None,
    seeds: Seeds = 3,
    fidelity: Fidelity = False,
    criteria: Criteria = None,
    force: Force = False,
    finetune: Finetune = False,
    as_json: AsJson = False,
) -> None:
    """Runs several searches on one problem with several seeds. An interrupted comparison keeps its finished runs."""
    settings = read_settings(config, forced(overrides, force))
    if evaluations is not None:
        section = settings.search.model_copy(update={"evaluations": evaluations})
        settings = settings.model_copy(update={"search": section})
    folder = run_directory_of(settings, config)
    if settings.run.directory is None:
        kind = "fidelity" if fidelity else "criteria" if criteria is not None else "compare"
        folder = folder.with_name(f"{folder.name}-{kind}")
    if fidelity and criteria is not None:
        raise ConfigError("--fidelity and --criteria: both given; allowed is one. Give one of them.")
    if (fidelity or criteria is not None) and searches != DEFAULT:
        raise ConfigError("--searches: given with --fidelity or --criteria, which run no searches. Remove --searches.")
    if finetune and (fidelity or criteria is not None):
        raise ConfigError("--finetune: given with --fidelity or --criteria, which run no searches. Give one of them.")
    if fidelity:
        _compare_fidelity(settings, folder, as_json)
        steps = with_config(str(config), overrides or (), inspected=True)
    elif criteria is not None:
        _compare_criteria(settings, folder, criteria_of(criteria), seeds, as_json)
        steps = with_config(str(config), [*(overrides or ()), "criterion.name=NAME"], inspected=True)
    else:
        best = _compare_searches(settings, folder, searches_of(searches), seeds, finetune, as_json)
        steps = with_comparison(folder, best, str(config), overrides or ())
    if not as_json:
        print_next(steps)


def searches_of(given: str) -> list[str]:
    """The searches in a comma-separated list.

    Raises:
        ConfigError: If a search is unknown, or the list is empty.
    """
    names = between_commas(given)
    for name in names:
        SEARCHES.find(name, "--searches")
    if not names:
        raise ConfigError(f"--searches: none given; allowed are {', '.join(SEARCHES)}, separated by commas.")
    return names


def criteria_of(given: str) -> list[str]:
    """The criteria in a comma-separated list; ``all`` stands for every registered one.

    Raises:
        ConfigError: If a criterion is unknown, or the list is empty.
    """
    listed = [known_criteria() if name == "all" else [name] for name in between_commas(given)]
    names = list(dict.fromkeys(chain.from_iterable(listed)))
    for name in names:
        criterion_named(name, "--criteria")
    if not names:
        raise ConfigError(f"--criteria: none given; allowed are all, or {', '.join(known_criteria())}.")
    return names


def _compare_searches(
    settings: RunConfig, folder: Path, names: list[str], seeds: int, finetune: bool, as_json: bool
) -> str:
    """Compares searches; returns the best one's name."""

    def on_finished(finished: FinishedSearch) -> None:
        name, seed = finished.search.settings.agent.name, finished.search.settings.seed
        notice(f"seed {seed}, {name}: {finished.rows[-1].reward_quality:.2%}, {finished.result.seconds:.0f} s")

    with resumable(lambda: after_interrupted_runs(folder)), phases("loading") as say:
        comparison = run_comparison(settings, folder, names, seeds, say, on_finished, command_line(), tell_dense)
    recovered = _recover(settings, folder, names, seeds) if finetune else None
    if as_json:
        more = {"recovered": recovered.as_record()} if recovered is not None else {}
        print_json({**comparison.as_record(), **more})
    else:
        evaluations = counted(settings.search.evaluations, "evaluation")
        results.print(render(comparison.outcomes, f"{title_of(comparison)}, {evaluations} each"))
        for table in render_recovery(recovered) if recovered is not None else ():
            results.print(table)
        print_place("report", folder / "compare.html")
        print_place("picture", folder / "compare.png")
        print_place("TensorBoard", folder)
    return ranked(comparison.outcomes)[0]


def _recover(settings: RunConfig, folder: Path, names: list[str], seeds: int) -> RecoveryComparison:
    every = range(settings.seed, settings.seed + seeds)
    with resumable(lambda: after_interrupted_runs(folder)), phases("fine-tuning") as say:
        return run_recovery(settings, folder, names, every, worker_count(settings), say)


def _compare_criteria(settings: RunConfig, folder: Path, names: list[str], seeds: int, as_json: bool) -> None:
    with resumable(lambda: after_interrupted_runs(folder)), phases("loading") as say:
        comparison = compare_criteria(settings, folder, names, seeds, say, tell_dense)
    for name, reason in comparison.left_out.items():
        notice(f"{name} is left out: {reason}")
    if as_json:
        print_json(comparison.as_record())
    else:
        results.print(render_criteria(comparison))


def _compare_fidelity(settings: RunConfig, folder: Path, as_json: bool) -> None:
    with resumable(lambda: after_interrupted_runs(folder)), phases("loading") as say:
        record = measure_fidelity(settings, folder, say, tell_dense)
    if as_json:
        print_json(record)
    else:
        results.print(render_fidelity(record, quality_of(make_task(settings.task)).name))


if __name__ == "__main__":
    run_command(compare)
