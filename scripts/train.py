"""`prune-env train`: search a network's pruning plan."""

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from agents.board import BoardListener
from agents.ddpg import PruningDDPG
from agents.policy import policy_of, save_policy
from agents.train import Episode, SearchResult, check_agent, count_episodes, train_agent
from prune_env.config import RunConfig
from prune_env.config_sections import FormSection
from prune_env.data import Splits
from prune_env.models import save_weights
from prune_env.prepare import check_names, load_model, load_splits, make_task
from prune_env.run import RunDirectory
from prune_env.task import PruningTask, Trial
from scripts.common import (
    AsJson,
    ConfigArgument,
    Overrides,
    console,
    print_json,
    read_config,
    results,
    run_command,
    run_directory_of,
)
from scripts.compare_table import LATENCY_BATCH, Row, compare_plans, render
from scripts.report_page import write_report


def train(config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Searches a pruning plan: an agent walks the network and learns how much of each unit stays."""
    settings = read_config(config, overrides)
    folder = run_directory_of(settings, config)
    RunDirectory.check_free(folder)
    check_names(settings)
    check_agent(settings)
    splits, task = _prepare(settings)
    count_episodes(task, settings)
    run = _start_run(folder, settings, splits, task)
    task.listeners.append(lambda trial: run.append_evaluation(record_of(trial, task)))
    with BoardListener(run.tensorboard, task, settings) as board:
        uniform = task.attempt(task.budget.uniform(), "uniform")
        result = _search(task, settings, run, board)
    plans = {"dense": task.walk.plan({}), "uniform": uniform.plan, "agent": result.best.plan}
    rows = compare_plans(task.evaluator, splits, plans)
    summary = _summary(settings, task, result, rows)
    run.write_json(run.summary, summary)
    report = write_report(run)
    if as_json:
        print_json({**summary, "run": str(run.root), "plan": str(run.plan), "policy": str(run.policy)})
    else:
        _tell(rows, task, uniform, result, run, report)


def _prepare(settings: RunConfig) -> tuple[Splits, PruningTask]:
    splits = load_splits(settings)
    with console.status("training the dense network" if settings.model.weights is None else "loading") as status:
        model = load_model(
            settings,
            splits,
            lambda epoch, loss: status.update(
                f"training the dense network: epoch {epoch} of {settings.pretrain.epochs}, loss {loss:.3f}"
            ),
        )
        task = make_task(settings, splits, model, status.update)
    low, high = task.budget.reachable
    console.print(
        f"{settings.model.name}: {len(task.budget.units)} of {len(task.walk.units)} units free, reachable "
        f"{low:.1%} to {high:.0%} of the dense {settings.budget.metric}, budget {settings.budget.keep:.0%}"
    )
    return splits, task


def _start_run(folder: Path, settings: RunConfig, splits: Splits, task: PruningTask) -> RunDirectory:
    run = RunDirectory.create(folder)
    assert task.form_choice is not None
    # With the form in it, the run's own config makes the same run again.
    run.write_config(settings.model_copy(update={"form": FormSection(**asdict(task.form_choice.form))}))
    run.write_json(run.splits, splits.record())
    run.write_json(run.form, task.form_choice.as_record())
    if task.report is not None:
        run.write_json(run.sensitivity, task.report.as_record())
    if settings.model.weights is None:
        save_weights(task.walk.model, run.root / "dense.safetensors")
    return run


def _search(task: PruningTask, settings: RunConfig, run: RunDirectory, board: BoardListener) -> SearchResult:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("best reward {task.fields[reward]}, accuracy {task.fields[accuracy]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("search", total=settings.search.evaluations, reward="-", accuracy="-")
        task.listeners.append(lambda _: progress.advance(bar))
        best: Trial | None = None

        def keep(episode: Episode, agent: PruningDDPG) -> None:
            nonlocal best
            if episode.best is not best:
                best = episode.best
                run.write_bytes(run.plan, best.plan.to_json())
                save_policy(policy_of(agent.actor, settings.env.action), run.policy)
            progress.update(bar, reward=f"{episode.best.reward:.4g}", accuracy=f"{episode.best.outcome.accuracy:.2%}")

        result = train_agent(task, settings, (keep, board))
    save_policy(result.policy, run.policy)
    return result


def record_of(trial: Trial, task: PruningTask) -> dict[str, Any]:
    """One line of evaluations.jsonl."""
    widths = trial.plan.widths
    return {
        "number": trial.number,
        "kind": trial.kind,
        "reward": trial.reward,
        "accuracy": trial.outcome.accuracy,
        "loss": trial.outcome.loss,
        "macs": trial.outcome.macs,
        "params": trial.outcome.params,
        "cached": trial.cached,
        "images": trial.outcome.images,
        "seconds": round(trial.seconds, 4),
        "widths": {unit.name: widths[unit.name] for unit in task.budget.units},
    }


def _summary(settings: RunConfig, task: PruningTask, result: SearchResult, rows: list[Row]) -> dict[str, Any]:
    return {
        "model": settings.model.name,
        "budget": {"metric": settings.budget.metric, "keep": settings.budget.keep},
        "rows": [row.as_record() for row in rows],
        "best_reward": result.best.reward,
        "threads": torch.get_num_threads(),
        "device": str(task.evaluator.device),
        "batch_size": LATENCY_BATCH,
        "episodes": result.episodes,
        "evaluations": task.trials,
        "cache_hits": task.evaluator.hits,
        "images_left": task.evaluator.images_left,
        "seconds": result.seconds,
        "seconds_per_episode": result.seconds / (result.episodes + task.probes),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(["prune-env", "train", *(word for word in sys.argv[1:] if word != "train")]),
    }


def _tell(
    rows: list[Row], task: PruningTask, uniform: Trial, result: SearchResult, run: RunDirectory, report: Path
) -> None:
    results.print(render(rows, f"{result.episodes} episodes, {result.seconds:.0f} s"))
    if uniform.reward >= result.best.reward:
        results.print(
            "[yellow]The uniform plan is at least as good as the agent's best on the reward set. "
            "Give the search more evaluations, or use the uniform plan.[/yellow]"
        )
    if task.racing:
        whole = task.evaluator.misses * task.evaluator.images
        results.print(f"racing left {task.evaluator.images_left / whole:.0%} of the reward images unseen")
    for name, path in (
        ("plan", run.plan),
        ("policy", run.policy),
        ("TensorBoard", run.tensorboard),
        ("report", report),
    ):
        results.print(f"{name:<12}{path}", soft_wrap=True)


if __name__ == "__main__":
    run_command(train)
