"""`prune-env bench episode`: an episode beside the bare forward passes in it."""

import os
import resource
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.progress import track
from rich.table import Table

from prune_env.common.memory import live_megabytes
from prune_env.config import RunConfig
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.runs.settings import read_settings
from prune_env.search.registry import check_search
from scripts.common import AsJson, ConfigArgument, Overrides, console, print_json, results
from scripts.episode_bench import EpisodeBench, learner_named

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
    """Times whole episodes, the evaluations in them, and the bare forward passes of the same networks, in turn.

    The episodes are those of the configured agent, which learns after each: ddpg, td3 or sac.
    """
    bench = ready_bench(read_settings(config, overrides or ()), 2 * rounds + SETTLING + episodes)
    start = resident_megabytes()
    for _ in track(range(rounds), "timing", console=console):
        bench.round()
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
        "cache_hits": bench.problem.evaluator.hits,
    }
    if as_json:
        print_json(record)
    else:
        _tell(record)


def ready_bench(settings: RunConfig, episodes: int) -> EpisodeBench:
    """A configuration's problem and its agent, after the agent's first episodes.

    Args:
        settings: The run's settings.
        episodes: How many episodes will be asked for.
    """
    check_search(settings)
    learner_named(settings.agent.name)
    # A plan that is given up within its evaluation has no limit to be compared with.
    settings = settings.model_copy(update={"search": settings.search.model_copy(update={"racing": False})})
    with console.status("loading") as status:
        splits = load_splits(settings)
        problem = build_problem(settings, splits, load_model(settings, splits), status.update)
        status.update("the agent's first episodes")
        return EpisodeBench(settings, splits, problem, episodes)


def resident_megabytes() -> float:
    """Memory that this process holds, in MB; its peak where the system does not tell what it holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _tell(record: dict[str, Any]) -> None:
    execution, (rewarded, calibrated) = record["execution"], record["images"]
    results.print(
        f"{record['model']}, {record['units']} free units, {rewarded} reward and {calibrated} calibration images; "
        f"{execution['dtype']}, {execution['layout']}, batch norms {'folded' if execution['folded'] else 'kept'}, "
        f"batches of {execution['batch']}, {execution['threads']} threads; medians of {record['plans']} plans"
    )
    table = Table(box=SIMPLE)
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_column("of the limit", justify="right")
    lines = {name: record[f"{name}_s"] for name in ("limit", "evaluation", "episode")}
    lines |= {f"  {name}": seconds for name, seconds in record["phases_s"].items()}
    for name, seconds in lines.items():
        table.add_row(name, f"{seconds:.4f}", f"{seconds / record['limit_s']:.3f}")
    results.print(table)
    results.print(
        f"Evaluation over limit {record['evaluation_over_limit']:.2f}, episode over limit "
        f"{record['episode_over_limit']:.2f}, {record['episodes_per_minute']:.0f} episodes a minute; a step "
        f"{record['step_us']:.0f} microseconds, slicing {record['slice_ms']:.1f} ms; {record['cache_hits']} plans came "
        "up again."
    )
    if record["rss_growth_mb"] is not None:
        live = "" if record["live_growth_mb"] is None else f" ({record['live_growth_mb']:+.1f} MB of them not freed)"
        results.print(
            f"Resident memory {record['rss_start_mb']:.0f} MB at the start, {record['rss_settled_mb']:.0f} MB after "
            f"{SETTLING} episodes and more, {record['rss_growth_mb']:+.1f} MB in {record['rss_episodes']} others{live}."
        )
