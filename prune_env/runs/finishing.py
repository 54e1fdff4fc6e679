"""Runs a search to its end, measures its networks and writes the summary."""

import shlex
import time
from dataclasses import dataclass
from typing import Any

import torch

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.plan import PruningPlan
from prune_env.runs.networks import NetworkRow, compare_networks
from prune_env.runs.pictures import as_png, compared_pictures
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun, Watch, search_into, unwatched
from prune_env.runs.settings import alone
from prune_env.runs.sparsifying import sparse_record
from prune_env.runs.starting import quietly
from prune_env.search.episode import SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.registry import SEARCHES


@dataclass(frozen=True)
class FinishedSearch:
    """A finished search.

    Attributes:
        search: The search.
        uniform: The uniform plan's trial.
        result: The result of the search.
        rows: The measured networks: dense, uniform, those of `Search.rivals`, and the search's best.
        summary: The content of ``summary.json``.
    """

    search: SearchRun
    uniform: Trial
    result: SearchResult
    rows: list[NetworkRow]
    summary: dict[str, Any]


def finish_search(
    search: SearchRun,
    watch: Watch = unwatched,
    on_trial: OnTrial = quietly,
    on_episode: OnEpisode = quietly,
    command: str | None = None,
) -> FinishedSearch:
    """Runs a search to its end, measures the dense, uniform and best network, and writes ``summary.json``.

    If the task draws pictures, ``pictures.png`` shows what these networks say about a few test images.

    Args:
        search: The search.
        watch: As `search_into`.
        on_trial: As `search_into`.
        on_episode: As `search_into`.
        command: The command that repeats the run, for the summary; None for the default command.

    Raises:
        RunError: As `search_into`.
    """
    uniform, result = search_into(search, watch, on_trial, on_episode)
    problem, settings = search.problem, search.settings
    plans = {"dense": problem.walk.plan({}), "uniform": uniform.plan}
    plans |= rival_rules(problem, settings) | {settings.agent.name: result.best.plan}
    networks = {name: (problem.evaluator.pruned(plan), plan.costs) for name, plan in plans.items()}
    rows = compare_networks(problem.evaluator, search.splits, networks, settings.budget.batch)
    models = {name: model for name, (model, _) in networks.items()}
    if (picture := compared_pictures(problem.evaluator, search.splits, models, settings.seed)) is not None:
        search.run.write_bytes(search.run.pictures, as_png(picture))
    summary = summary_of(search, result, rows, command)
    if (sparsified := sparse_record(search.run)) is not None:
        summary["sparsify"] = sparsified
    search.run.write_json(search.run.summary, summary)
    return FinishedSearch(search, uniform, result, rows, summary)


def rival_rules(problem: PruningProblem, settings: RunConfig) -> dict[str, PruningPlan]:
    """The best plans of the rules that stand beside a search (`Search.rivals`), by name.

    Rules that need probes are left out where ``sensitivity.probe_keep`` is null. The evaluator knows the probes.
    """
    plans = {}
    for name in SEARCHES.find(settings.agent.name).rivals:
        if SEARCHES.find(name).needs_probes and problem.probe_keep is None:
            continue
        agent = settings.agent.model_copy(update={"name": name, "policy": None})
        alone_with_rule = alone(settings).model_copy(update={"agent": agent})
        plans[name] = train_agent(problem.again(), alone_with_rule).best.plan
    return plans


def summary_of(
    search: SearchRun, result: SearchResult, rows: list[NetworkRow], command: str | None = None
) -> dict[str, Any]:
    """The content of ``summary.json``."""
    run, settings, evaluator = search.run, search.settings, search.problem.evaluator
    trials = run.evaluations(search.problem.quality_name)
    evaluated = [trial.images or evaluator.images for trial in trials]
    return {
        "model": settings.model.name,
        "search": settings.agent.name,
        "budget": settings.budget.as_record(),
        "rows": [row.as_record() for row in rows],
        "best_reward": result.best.reward,
        "threads": torch.get_num_threads(),
        "device": str(evaluator.device),
        "batch_size": settings.budget.batch,
        "episodes": result.episodes,
        "evaluations": len(trials),
        "cache_hits": sum(trial.cached for trial in trials),
        "images_left": evaluator.images * len(trials) - sum(evaluated),
        "seconds": result.seconds,
        "seconds_per_evaluation": result.seconds / len(trials),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command or shlex.join(["prune-env", "train", str(run.config), "run.directory=..."]),
    }
