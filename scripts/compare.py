"""`prune-env compare`: the same problem for several searches and seeds, side by side."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch.utils.tensorboard import SummaryWriter

from prune_env.common.errors import ConfigError, RunError, suggest
from prune_env.common.files import atomic_write
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.report.comparison_figure import Band, comparison_picture
from prune_env.report.figures import figure_png
from prune_env.report.network_table import NetworkRow, compare_plans
from prune_env.report.page import write_report
from prune_env.report.search_comparison import SeedResult, as_record, bands, best_so_far, render
from prune_env.runs.directory import RunDirectory
from prune_env.runs.searching import (
    check_same_start,
    differing_settings,
    prepare,
    search_into,
    settings_of,
    start_run,
    summary_of,
)
from prune_env.search.registry import SEARCHES, check_evaluations, check_search
from prune_env.tasks import make_task, quality_of
from scripts.common import (
    AsJson,
    ConfigArgument,
    Overrides,
    between_commas,
    console,
    print_json,
    read_config,
    results,
    run_command,
    run_directory_of,
    to_json,
)
from scripts.criteria import measure_criteria, names_of
from scripts.fidelity import measure_fidelity

DEFAULT = "uniform,random,greedy,power,eigenvalue,cma,cma_from_rules,tpe,ddpg"

Searches = Annotated[str, typer.Option(help=f"Names between commas, of: {', '.join(SEARCHES)}.")]
Evaluations = Annotated[
    int | None, typer.Option(min=1, help="Plans that each may evaluate, probes counted. [default: search.evaluations]")
]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from the configuration's on.")]
Criteria = Annotated[
    str | None, typer.Option(help="Instead: the uniform widths with each of these criteria, between commas, or all.")
]
Fidelity = Annotated[
    bool, typer.Option("--fidelity", help="Instead: how well the reward ranks plans as fine-tuning them would.")
]


def compare(
    config: ConfigArgument,
    overrides: Overrides = None,
    searches: Searches = DEFAULT,
    evaluations: Evaluations = None,
    seeds: Seeds = 3,
    fidelity: Fidelity = False,
    criteria: Criteria = None,
    as_json: AsJson = False,
) -> None:
    """Runs several searches on the same problem, seed by seed; finished runs of an interrupted comparison are kept."""
    settings = read_config(config, overrides)
    if evaluations is not None:
        section = settings.search.model_copy(update={"evaluations": evaluations})
        settings = settings.model_copy(update={"search": section})
    folder = run_directory_of(settings, config)
    if settings.run.directory is None:
        kind = "fidelity" if fidelity else "criteria" if criteria is not None else "compare"
        folder = folder.with_name(f"{folder.name}-{kind}")
    check_names(settings)
    if fidelity and criteria is not None:
        raise ConfigError("--fidelity and --criteria: both given; each is a comparison of its own. Give one of them.")
    if (fidelity or criteria is not None) and searches != DEFAULT:
        raise ConfigError("--searches: given with --fidelity or --criteria, which compare no searches. Leave it out.")
    if fidelity:
        measure_fidelity(folder, settings, as_json)
        return
    if criteria is not None:
        measure_criteria(folder, settings, names_of(criteria), seeds, as_json)
        return
    names = _names(searches)
    for name in names:
        check_search(_with(settings, name, settings.seed))
    comparison = _Comparison(folder, settings, names)
    for seed in range(settings.seed, settings.seed + seeds):
        comparison.run(seed)
    comparison.finish(as_json)


def _names(searches: str) -> list[str]:
    names = between_commas(searches)
    for name in names:
        if name not in SEARCHES:
            raise ConfigError(f"--searches: there is no search {name!r}; {suggest(name, list(SEARCHES))}.")
    if not names:
        raise ConfigError(f"--searches: none given; allowed are {', '.join(SEARCHES)}, with commas between.")
    return names


def _check_alike(runs: Sequence[RunDirectory]) -> None:
    """Refuses to compare runs of one seed that were measured in different ways.

    Raises:
        RunError: If their forms, weights or images differ.
    """
    first, *others = runs
    for other in others:
        forms = [RunConfig.load(run.config).form for run in (first, other)]
        weights = [run.read_json(run.form).get("weights") for run in (first, other)]
        splits = [run.read_json(run.splits) for run in (first, other)]
        for what, (ours, theirs) in (("form.*", forms), ("weights", weights), ("images", splits)):
            if ours != theirs:
                raise RunError(
                    f"{str(first.root)!r} and {str(other.root)!r} were measured with other {what}, so that their "
                    "accuracies do not compare. Move one of them away, and it is measured again like the other."
                )


def _with(settings: RunConfig, search: str, seed: int) -> RunConfig:
    agent = settings.agent.model_copy(update={"name": search})
    return settings.model_copy(update={"agent": agent, "seed": seed})


class _Comparison:
    """A folder of runs, one for each seed and search: FOLDER/seed-SEED/SEARCH."""

    def __init__(self, folder: Path, settings: RunConfig, names: Sequence[str]) -> None:
        self.folder = folder
        self.settings = settings
        self.quality = quality_of(make_task(settings.task)).name
        self.names = names
        whole = settings.search.evaluations
        self.milestones = sorted({math.ceil(whole / 3), whole})
        self.outcomes: dict[str, list[SeedResult]] = {name: [] for name in names}

    def run(self, seed: int) -> None:
        """Does what is missing of a seed, and reads what there is."""
        runs = {name: RunDirectory(self.folder / f"seed-{seed}" / name) for name in self.names}
        started = [name for name, run in runs.items() if run.config.is_file()]
        for name in started:
            self._check_same(runs[name], _with(self.settings, name, seed))
        if missing := [name for name, run in runs.items() if not run.summary.is_file()]:
            # The form and the weights of a run that was started are everyone's, whichever search's it is.
            earlier = next(iter(self._present(seed)), None)
            base = settings_of(earlier) if earlier is not None else _with(self.settings, missing[0], seed)
            splits, problem = prepare(base, earlier)
            for name in missing:
                check_evaluations(problem, _with(base, name, seed))
            fixed: list[NetworkRow] = []
            for name in missing:
                fixed = self._search(runs[name], _with(self.settings, name, seed), splits, problem, fixed)
        _check_alike(list(runs.values()))
        for name, run in runs.items():
            self.outcomes[name].append(self._outcome(run, name, seed))

    def _present(self, seed: int) -> list[RunDirectory]:
        """All runs of a seed that were started, also of searches that are not asked for now."""
        folders = sorted((self.folder / f"seed-{seed}").glob("[!.]*/config.yaml"))
        return [RunDirectory(config.parent) for config in folders]

    def _check_same(self, run: RunDirectory, settings: RunConfig) -> None:
        started = RunConfig.load(run.config)
        differing = differing_settings(started, settings)
        differing += [f"form.{key}" for key, value in settings.form if value not in (None, getattr(started.form, key))]
        if differing:
            raise RunError(
                f"{str(run.root)!r} holds a run with other settings under {', '.join(differing)}. A comparison is of "
                "runs that differ in search and seed alone: give another folder by run.directory=..."
            )

    def _search(
        self, run: RunDirectory, settings: RunConfig, splits: Splits, whole: PruningProblem, fixed: list[NetworkRow]
    ) -> list[NetworkRow]:
        """Runs one search to its end; returns the rows of the networks that are the same for all."""
        name = settings.agent.name
        problem = whole.again()
        if run.config.is_file():
            check_same_start(run, splits, problem)
        else:
            run = start_run(run.root, settings, splits, problem)
        with console.status("") as status:
            total = settings.search.evaluations
            uniform, result = search_into(
                run,
                problem,
                settings,
                lambda trial: status.update(f"seed {settings.seed}, {name}: {trial.number} of {total} evaluations"),
                lambda _: None,
            )
            status.update(f"seed {settings.seed}, {name}: measuring the best plan")
            if not fixed:
                plans = {"dense": problem.walk.plan({}), "uniform": uniform.plan}
                fixed = compare_plans(problem.evaluator, splits, plans, batch=None)
            rows = compare_plans(problem.evaluator, splits, {name: result.best.plan}, batch=None)
            summary = summary_of(run, problem, settings, result, [*fixed, *rows])
            summary["best_after"] = {**self._early(run, name, problem), str(total): rows[0].reward_quality}
            run.write_json(run.summary, summary)
            write_report(run)
        console.print(f"seed {settings.seed}, {name}: {rows[0].reward_quality:.2%}, {result.seconds:.0f} s")
        return fixed

    def _early(self, run: RunDirectory, name: str, problem: PruningProblem) -> dict[str, float]:
        """Float32 accuracy of the best plan after each milestone but the last."""
        _, records = best_so_far(run, name, self.milestones[-1])
        found = {}
        for count in self.milestones[:-1]:
            widths = records[count - 1]["widths"]
            plan = problem.plan(np.array([widths[unit.name] for unit in problem.budget.units]))
            found[str(count)] = problem.evaluator.measure(problem.evaluator.pruned(plan))
        return found

    def _outcome(self, run: RunDirectory, name: str, seed: int) -> SeedResult:
        summary = run.read_json(run.summary)
        curve, _ = best_so_far(run, name, self.milestones[-1])
        try:
            best = {count: float(summary["best_after"][str(count)]) for count in self.milestones}
            return SeedResult(seed, curve, best, float(summary["rows"][-1]["test_accuracy"]), float(summary["seconds"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RunError(
                f"{str(run.summary)!r} is not of a comparison's run ({error!r}): it was finished by another command, "
                "or with another number of evaluations. Remove this file, and the comparison finishes the run itself."
            ) from None

    def finish(self, as_json: bool) -> None:
        """Writes the picture, the curves and the numbers, and tells them."""
        settings = self.settings
        curves = {name: np.stack([one.curve for one in outcomes]) for name, outcomes in self.outcomes.items()}
        drawn = {name: Band(found.mean(axis=0), *bands(found)) for name, found in curves.items()}
        metric = "MACs" if settings.budget.metric == "macs" else settings.budget.metric
        title = (
            f"{settings.model.name} at {settings.budget.keep:.0%} of the {metric}: mean of "
            f"{len(next(iter(curves.values())))} seeds and its 95 % interval"
        )
        record = {
            "model": settings.model.name,
            "budget": {"metric": settings.budget.metric, "keep": settings.budget.keep},
            "evaluations": settings.search.evaluations,
            "directory": str(self.folder),
            "searches": as_record(self.outcomes),
        }
        atomic_write(self.folder / "compare.json", to_json(record).encode())
        atomic_write(self.folder / "compare.png", figure_png(comparison_picture(title, drawn, self.quality)))
        self._write_board(drawn)
        if as_json:
            print_json(record)
            return
        results.print(render(self.outcomes, f"{title}, {settings.search.evaluations} evaluations each"))
        results.print(f"picture     {self.folder / 'compare.png'}", soft_wrap=True)
        results.print(f"TensorBoard {self.folder}", soft_wrap=True)

    def _write_board(self, drawn: Mapping[str, Band]) -> None:
        """One log for each search, so that TensorBoard draws them over each other."""
        for name, band in drawn.items():
            with SummaryWriter(str(self.folder / "tensorboard" / name), purge_step=0) as writer:
                for number, (mean, low, high) in enumerate(zip(*band, strict=True), start=1):
                    for key, value in (("mean", mean), ("low", low), ("high", high)):
                        writer.add_scalar(f"compare/best_accuracy_{key}", value, number)


if __name__ == "__main__":
    run_command(compare)
