"""`prune-env bench episode`: an episode beside the bare forward passes in it, and beside the plain way."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.box import SIMPLE
from rich.progress import track
from rich.table import Table

from agents.ddpg import make_ddpg
from prune_env.common.errors import EvaluationError
from prune_env.common.memory import live_megabytes
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.plan import PruningPlan
from prune_env.runs.settings import read_settings
from prune_env.search.registry import check_search
from scripts.common import AsJson, ConfigArgument, Overrides, console, print_json, results
from scripts.plain_way import PlainWay

PARTS = ("slicing", "recalibration", "folding", "forward")
"""What an evaluation is made of."""

SETTLING = 100
"""Episodes before the memory is watched: torch keeps the kernels of new shapes until it has about a thousand."""

Rounds = Annotated[int, typer.Option(min=1, help="Plans that everything is timed on; medians are reported.")]
Episodes = Annotated[int, typer.Option(min=0, help="Episodes over which the resident memory is watched.")]


def bench_episode(
    config: ConfigArgument,
    overrides: Overrides = None,
    rounds: Rounds = 11,
    episodes: Episodes = 500,
    as_json: AsJson = False,
) -> None:
    """Times whole episodes, the evaluations in them, and the bare forward passes of the same networks, in turn."""
    settings = read_settings(config, overrides or ())
    check_search(settings)
    # A plan that is given up within its evaluation has no limit to be compared with.
    settings = settings.model_copy(update={"search": settings.search.model_copy(update={"racing": False})})
    with console.status("loading") as status:
        splits = load_splits(settings)
        problem = build_problem(settings, splits, load_model(settings, splits), status.update)
        status.update("the agent's first episodes")
        bench = _Bench(settings, splits, problem, 2 * rounds + SETTLING + episodes)
    start = resident_megabytes()
    device, task = problem.evaluator.device, problem.evaluator.task
    with PlainWay(problem.walk.model, splits.reward(), splits.calibration(), device, task) as plain:
        for _ in track(range(rounds), "timing", console=console):
            bench.round(plain)
    for _ in track(range(SETTLING if episodes else 0), "letting memory settle", console=console):
        bench.episode()
    settled, live = resident_megabytes(), live_megabytes()
    for _ in track(range(episodes), "watching memory", console=console):
        bench.episode()
    grown = live_megabytes()
    record = {
        **bench.record(),
        "rss_start_mb": start,
        "rss_settled_mb": settled,
        "rss_growth_mb": resident_megabytes() - settled if episodes else None,
        "live_growth_mb": grown - live if episodes and live is not None and grown is not None else None,
        "rss_episodes": episodes,
        "cache_hits": problem.evaluator.hits,
    }
    if as_json:
        print_json(record)
    else:
        _tell(record)


def clock(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def resident_megabytes() -> float:
    """Memory that this process holds, in MB; its peak where the system does not tell what it holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class _Bench:
    """One problem with its agent, and what each plan took."""

    def __init__(self, settings: RunConfig, splits: Splits, problem: PruningProblem, episodes: int) -> None:
        self.problem = problem
        self.calibration_images = len(splits.calibration_indices)
        self.seconds: dict[str, list[float]] = {}
        self.plain_fails: str | None = None
        self._trial: Trial | None = None
        self._update = 0.0
        env = PruningEnv(problem=problem)
        assert problem.observer  # the probes come first, as in a search
        problem.listeners.append(self._hear)
        # Learning from the second episode on, as it does for nearly all of a search.
        section = settings.agent.with_preset().model_copy(update={"warmup_episodes": 1})
        self._steps = len(problem.budget.units)
        self.agent = make_ddpg(env, section, self._steps, episodes + 2, settings.seed)
        self._learn = self.agent.train
        self.agent.train = self._timed_update  # type: ignore[method-assign]
        self.agent.learn(2 * self._steps)

    def _hear(self, trial: Trial) -> None:
        self._trial = trial

    def _timed_update(self, gradient_steps: int, batch_size: int = 64) -> None:
        self._update = clock(partial(self._learn, gradient_steps, batch_size))

    def episode(self) -> float:
        """One episode of the agent, its updates included; seconds."""
        return clock(lambda: self.agent.learn(self._steps, reset_num_timesteps=False))

    def round(self, plain: PlainWay) -> None:
        """An episode, and then its plan again: run bare, and cut and run the plain way."""
        self.episode()  # as in a search, an episode comes after an episode
        whole = self.episode()
        trial, evaluator = self._trial, self.problem.evaluator
        assert trial is not None
        if trial.cached:
            return
        parts = {part: evaluator.seconds[part] for part in PARTS}
        evaluation, update = sum(parts.values()), self._update
        found = {
            "episode": whole,
            "evaluation": evaluation,
            **parts,
            "bookkeeping": trial.seconds - evaluation,
            "update": update,
            "steps": whole - update - trial.seconds,
            "step": self._step(),
            "limit": statistics.median([clock(self._bare) for _ in range(3)]),
        }
        if self.plain_fails is None:
            try:
                found["plain"] = plain.seconds(self._removed(trial.plan))
            except Exception as error:  # whatever Torch-Pruning says of this network
                self.plain_fails = f"{type(error).__name__}: {error}"
        for key, value in found.items():
            self.seconds.setdefault(key, []).append(value)

    def _step(self) -> float:
        """Median seconds of a step that is not an episode's last."""
        env = PruningEnv(problem=self.problem)
        env.reset()
        actions = (
            np.random.default_rng(0).uniform(-1, 1, (self._steps, *(env.action_space.shape or ()))).astype(np.float32)
        )
        return statistics.median([clock(partial(env.step, action)) for action in actions[1:]] or [0.0])

    def _bare(self) -> None:
        """The network that the evaluator has in shape, over both sets, and nothing else."""
        evaluator = self.problem.evaluator
        with torch.no_grad(), evaluator.form.computing(evaluator.device):
            for images, _ in (*evaluator.calibration, *evaluator.reward):
                output = evaluator.network(images)
        float(output.sum())  # a GPU works on after the call has returned

    def _removed(self, plan: PruningPlan) -> dict[str, list[int]]:
        """The output channels that a plan cuts, by the layer that a unit is named after."""
        removed: dict[str, list[int]] = {}
        for unit in self.problem.budget.units:
            gone = np.setdiff1d(np.arange(unit.channels), plan.kept[unit.name])
            own = next(member for member in unit.members if (member.module, member.side) == (unit.name, "out"))
            if len(gone):
                removed[unit.name] = own.index[gone].ravel().tolist()
        return removed

    def record(self) -> dict[str, Any]:
        """Medians over the plans, and their ratios.

        Raises:
            EvaluationError: If the agent only proposed plans that were evaluated before.
        """
        if not self.seconds:
            raise EvaluationError(
                f"Every one of the agent's plans had been evaluated before: {self._steps} free units leave too few. "
                "Ask for more --rounds, or protect fewer units."
            )
        middle = {key: statistics.median(values) for key, values in self.seconds.items()}
        ratios = {
            f"{key}_over_limit": statistics.median(np.divide(self.seconds[key], self.seconds["limit"]).tolist())
            for key in ("evaluation", "episode")
        }
        plain = self.seconds.get("plain")
        evaluator, choice = self.problem.evaluator, self.problem.execution_choice
        assert choice is not None
        return {
            "model": self.problem.provenance["model"],
            "units": self._steps,
            "images": [evaluator.images, self.calibration_images],
            "plans": len(self.seconds["limit"]),
            "limit_s": middle["limit"],
            "evaluation_s": middle["evaluation"],
            "episode_s": middle["episode"],
            "plain_s": middle.get("plain"),
            **ratios,
            "plain_over_ours": statistics.median(np.divide(plain, self.seconds["evaluation"][: len(plain)]).tolist())
            if plain
            else None,
            "plain_fails": self.plain_fails,
            "step_us": 1e6 * middle["step"],
            "slice_ms": 1e3 * middle["slicing"],
            "episodes_per_minute": 60.0 / middle["episode"],
            "form": {**asdict(evaluator.form), "threads": torch.get_num_threads()},
            "form_reason": choice.reason,
            "agreement": choice.agreement,
            "phases_s": {phase: middle[phase] for phase in ("steps", "bookkeeping", *PARTS, "update")},
        }


def _tell(record: dict[str, Any]) -> None:
    form, (rewarded, calibrated) = record["form"], record["images"]
    results.print(
        f"{record['model']}, {record['units']} free units, {rewarded} reward and {calibrated} calibration images; "
        f"{form['dtype']}, {form['layout']}, batch norms {'folded' if form['folded'] else 'kept'}, batches of "
        f"{form['batch']}, {form['threads']} threads; medians of {record['plans']} plans"
    )
    table = Table(box=SIMPLE)
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_column("of the limit", justify="right")
    lines = {name: record[f"{name}_s"] for name in ("limit", "evaluation", "episode", "plain")}
    lines |= {f"  {name}": seconds for name, seconds in record["phases_s"].items()}
    for name, seconds in lines.items():
        if seconds is not None:
            table.add_row(name, f"{seconds:.4f}", f"{seconds / record['limit_s']:.3f}")
    results.print(table)
    if record["plain_fails"]:
        results.print(f"The plain way fails: {record['plain_fails']}", markup=False)
    plain = f"plain way over ours {record['plain_over_ours']:.2f}, " if record["plain_over_ours"] else ""
    results.print(
        f"Evaluation over limit {record['evaluation_over_limit']:.2f}, episode over limit "
        f"{record['episode_over_limit']:.2f}, {plain}{record['episodes_per_minute']:.0f} episodes a minute; a step "
        f"{record['step_us']:.0f} microseconds, slicing {record['slice_ms']:.1f} ms; {record['cache_hits']} plans came "
        "up again."
    )
    if record["rss_growth_mb"] is not None:
        live = "" if record["live_growth_mb"] is None else f" ({record['live_growth_mb']:+.1f} MB of them not freed)"
        results.print(
            f"Resident memory {record['rss_start_mb']:.0f} MB at the start, {record['rss_settled_mb']:.0f} MB after "
            f"{SETTLING} episodes and more, {record['rss_growth_mb']:+.1f} MB in {record['rss_episodes']} others{live}."
        )
